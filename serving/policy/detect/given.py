"""Common given names: data for `pairs`.

Given names of the languages that have no model here, English and German first; a name that is missing is not seen
without a cue.
"""

from __future__ import annotations

from typing import Final

GIVEN: Final = frozenset(
    "aaron abigail adam adrian agnes aisha alan albert alex alexander alexandra alexis alfred ali alice alicia alina "
    "alison allison amanda amber amelia amy ana andre andrea andreas andrew angela angelika anita anja ann anna anne "
    "annette annika anthony anton antonia antonio arnold arthur ashley astrid audrey ava barbara beate beatrice ben "
    "benjamin bernard bernd bernhard bertha beth betty beverly bianca bill birgit bob bonnie brad bradley "
    "brandon brenda "
    "brian brigitte bruce bruno bryan cameron carl carla carlos carmen carol caroline carolyn carsten "
    "catherine cecilia "
    "charles charlotte cheryl chloe chris christa christian christiane christina christine christoph christopher cindy "
    "claire clara claudia claus colin connor cornelia craig crystal curtis cynthia dagmar daniel daniela "
    "danielle david "
    "dawn deborah denise dennis derek detlef diana diane dieter dietmar dirk dominik donald donna doris "
    "dorothea dorothy "
    "douglas dylan eberhard edith eduard edward edwin elaine eleanor elena elias elisabeth elizabeth elke ella ellen "
    "emil emily emma eric erica erich erik erika ernst erwin esther ethan eugene eva evelyn fabian fatima felix "
    "ferdinand fiona florian frances francis franz fred frederick friedrich fritz gabriel gabriele gareth "
    "gary geoffrey "
    "george georg gerald gerda gerhard gertrud gisela gloria gordon graham greg gregory greta gudrun guido gunther "
    "günter günther hannah hannelore hannes hans harald harold harriet harry hartmut hassan heather heidi heike heiko "
    "heiner heinrich heinz helen helena helga helmut henrik henry herbert hermann hilde hildegard holger horst howard "
    "hubert hugo ian ibrahim ilse ines inga ingeborg ingo ingrid irene iris irma isaac isabel isabella isabelle jack "
    "jackson jacob jacqueline jakob james jamie jan jana jane janet janice janine jasmin jason jeffrey jennifer jens "
    "jeremy jessica jill jim joachim joan joanna jochen joel johann johanna johannes john jonas jonathan jordan jorg "
    "jörg josef joseph joshua joyce juan judith judy julia julian julie jürgen jurgen justin jutta kai "
    "karen karin karl "
    "karoline katharina katherine kathleen kathrin kathryn katja katrin kay keith kelly kenneth kerstin kevin kimberly "
    "klara klaus konrad kristin kristina kurt kyle larry lars laura lauren lawrence lea leah lena leon leonard leonie "
    "lesley leslie liam lieselotte linda lisa logan lorenz lothar louis louisa louise luca lucas lucy "
    "ludwig luis luisa "
    "lukas luke lutz lydia lynn madison magdalena maike malcolm manfred manuela marc marcel marco marcus margaret "
    "margarete margit maria marianne marie marilyn marina mario marion mark markus marlene marta martha martin martina "
    "mary mathias matilda matthew matthias maureen maurice max maximilian megan mehmet melanie melissa mia michael "
    "michaela michele michelle miguel mike mohamed mohammed monica monika moritz mustafa nadine nadja nancy natalie "
    "nathan neil nele nicholas nick nico nicole niklas nils nina noah nora norbert norman olaf oliver "
    "olivia oscar oskar "
    "otto owen pamela pascal patricia patrick paul paula pauline peggy peter petra philip philipp phillip "
    "phyllis rachel "
    "rainer ralf ralph ramona randy raymond rebecca regina reinhard reinhold renate rene ricardo richard rita robert "
    "roberta roger roland rolf ronald ronja rosa rosemary roy rudolf russell ruth ryan sabine sabrina "
    "sally sam samantha "
    "samuel sandra sandy sara sarah scott sean sebastian sharon sheila shirley siegfried sigrid silke silvia simon "
    "simone sofia sonja sophia sophie stacy stefan stefanie steffen stella stephan stephanie stephen "
    "steve steven stewart "
    "stuart susan susanne suzanne sven svenja sylvia tamara tanja tara teresa theodor theresa thomas thorsten tim timo "
    "timothy tina tobias todd tom torsten tracy tyler udo ulrich ulrike ursula ute uwe valentina valerie vanessa vera "
    "verena veronica veronika victor victoria viktor viktoria vincent virginia volker walter waltraud "
    "wanda wayne wendy "
    "werner wilhelm william winfried wolfgang yasmin yusuf yvonne zachary zoe "
    "ivan dmitri dmitry sergei sergey alexei alexey nikolai andrei andrey pavel mikhail vladimir igor "
    "oleg anatoly olga "
    "irina natalia natalya svetlana tatiana tatyana ekaterina elena ksenia anastasia yulia galina ludmila "
    "pierre jean francois philippe nicolas marco giovanni giuseppe francesca chiara giulia jose javier pablo lucia "
    "piotr krzysztof andrzej agnieszka katarzyna malgorzata magda joanna ewa willem johan sanne daan pieter".split()
)
