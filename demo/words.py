"""Word lists for filler, names and labels, and the pseudo-words made from syllables.

The `UNSEEN_*` lists are for `demo.judge` alone: nothing else may import them, so that judged
filler is made of words the model has never met.
"""

from __future__ import annotations

import random

ENGLISH = """
    about above across after again almost along already also always among animal answer apple around arrive autumn
    away baker ball bank basket beach bear because become before begin behind believe below beside better between
    bicycle bird black blue boat book border both bottle bottom box branch bread break bridge bright bring broken
    brother brown build building bus busy butter button buy cake call camera candle care carry castle cat catch centre
    chair change cheap cheese child church circle city class clean clear climb clock close cloud coast coat coffee
    cold colour come common cook copper corner cotton count country cover cross crowd cup curtain cut dance dark
    daughter day deep desk different dinner dog door down draw dream dress drink drive drop dry during each early
    earth east easy eat edge egg eight either empty end engine enough evening every eye face fall family far farm fast
    father feel fence few field fill find fine finger fire first fish five flat floor flower fly follow food foot
    forest forget fork form four free fresh friend from front fruit full garden gate gentle give glass goat gold good
    grass great green grey ground group grow half hall hand happy hard hat have head hear heart heavy help here high
    hill hold hole home horse hot hour house how hundred ice idea inside iron island job join journey keep key kind
    king kitchen knee knife know ladder lake lamp land large last late laugh leaf learn leather leave left leg letter
    library light like line lion list listen little live long look lose loud love low lunch machine make many map
    market matter meadow meal meet message middle milk mind minute mirror moment money month moon more morning most
    mother mountain mouse mouth move much music narrow near neck need nest never new next night nine noise north nose
    nothing now number oak ocean off often oil old once one open orange other out over own page paint pair paper park
    part pass past path pay pencil people pepper perhaps picture piece pine place plain plant plate play please pocket
    point pond poor pot potato present press price promise pull push put queen question quick quiet quite rabbit rain
    read ready red rest return ribbon rice rich ride right ring rise river road rock roof room root rope round row run
    sail salt same sand save say school sea season seat second see seed sell send seven shade shadow shake sheep sheet
    shelf ship shirt shoe shop short should shoulder show side silver simple since sing sister sit six sky sleep slow
    small smell smile smoke snow soap soft some song soon sound soup south space speak spoon spring square stable
    stairs stand star start station stay steam step still stone stop storm story straight street string strong study
    sugar summer sun sweet swim table tail take tall taste tea teach ten than that the their then there they thick
    thin thing think this three through ticket time tired today together tomorrow too top touch towards tower town
    train tree trip true try turn twelve two umbrella under until upon use valley very village visit voice wait walk
    wall want warm wash watch water wave way weather week well west wheel when where which while white who wide wild
    will wind window wine winter wise with without woman wood wool word work world write yard year yellow yes
    yesterday young
""".split()

RUSSIAN = """
    автобус апрель арбуз бабушка башня белый берег береза больше большой брат будет бумага быстро был вагон ваза
    важный вдруг ведро веревка весна ветер вечер взять видеть вместе вода возле воздух вокруг волна ворота восток
    время все всегда встреча второй высокий газета где глаз глубокий говорить год голос гора город горячий гость готов
    громко груша давно далеко дверь два двор девочка дедушка делать день деревня дерево десять длинный для добрый
    дождь долго дом дорога доска друг думать дым его еще есть если желтый жизнь жить забор завтра завод закат замок
    запах звезда зеленый земля зеркало зима знать золото зонт игра идти изба или имя иногда искать июль каждый как
    камень карта картина каша квартира кирпич ключ книга ковер когда колесо колодец комната конец конь корабль корень
    коробка корова костер котенок который край красный кресло круглый крыша кто кузнец курица кухня лампа ласточка
    легкий лед лежать лес лестница лето лимон липа лист лицо лодка лошадь луг луна любить маленький мальчик март масло
    мать машина мед медведь между место месяц метель минута много может мокрый молоко море мороз мост музыка мука
    мысль мягкий мяч над надо народ наш небо неделя нельзя никогда новый нога нож ночь обед облако огонь один озеро
    окно октябрь она они опять орех осень остров ответ открыть очень палка парк парус перед перо песня песок петух
    печь писать письмо платье плыть погода под поезд поздно пол поле полка помнить пора порт после потом почему
    поэтому право пруд прямо птица пустой путь пшеница работа рано рассказ ребенок река рисунок роза роща рубашка рука
    ручей рыба рынок рядом сад сахар свет свеча север сегодня село семь семья сестра сила синий сирень скоро слово
    слон случай снег снова собака совсем сок солнце соль сон сосна спать спокойно старый стекло стена степь стол
    сторона стоять страна стул сундук суп сухой сын тарелка теперь теплый тень тетрадь тихо тогда только трава три
    тропа туман туча тут угол узкий улица утро ухо учить фонарь хлеб ходить холодный хорошо цвет цветок час часто чай
    человек через черный четыре чистый читать чашка шаг шар широкий школа шляпа шум щука это этот юг яблоко ягода язык
    январь ярко ясный ящик
""".split()

UNSEEN_ENGLISH = """
    acrobat almond anchor anthem avalanche balcony banjo beetle blizzard blossom bonfire breeze bucket buffalo cabin
    cactus canyon caramel cathedral cellar chestnut chimney cinnamon clarinet compass coral cricket dolphin dragonfly
    drizzle dungeon eagle elbow emerald falcon feather ferry fiddle fossil fountain galaxy ginger glacier gravel
    hammock harbour hazel hedgehog helmet honey hurricane ivory jasmine jigsaw jungle kettle kingdom lagoon lantern
    lavender lemonade lighthouse lizard magnet marble meteor mosaic mustard nectar nightfall nutmeg octopus orchard
    orchid otter oyster paddle panther parachute parsley peacock pebble pelican penguin plateau prairie puddle pyramid
    quarry quilt raccoon rhubarb saddle saffron sapphire scarf seagull shepherd skeleton sparrow spinach squirrel
    tapestry thistle thunder tornado trumpet tulip turnip twilight umpire vanilla velvet violin volcano walnut
    waterfall whisker willow xylophone yacht zebra zeppelin
""".split()

UNSEEN_RUSSIAN = """
    абрикос аквариум барабан бархат белка бирюза бочка валенок василек вишня водопад воробей вулкан гвоздика глобус
    гранат гроза дельфин дятел ежевика енот жасмин жемчуг жираф журавль зебра земляника изумруд индюк кабачок кактус
    калина камыш капуста каштан кедр кипарис клюква колокол компас крапива кувшин лаванда лебедь лиана лопата лягушка
    маяк метеор мимоза молния мотылек мрамор наковальня незабудка норка облепиха одуванчик орган павлин папоротник
    парашют пещера пингвин подсолнух попугай радуга ракушка ромашка рябина самовар сапфир скрипка снегирь сова
    стрекоза тополь тюльпан улитка фасоль фиалка филин хижина хурма цапля черепаха шалаш шафран щавель эвкалипт юрта
    якорь ястреб
""".split()

NAMES = """
    Adam Alice Amir Anna Arthur Ben Boris Carl Carmen Clara Daniel Diana Edgar Elena Emma Erik Eva Felix Fiona Frank
    Gina Grace Hanna Hugo Igor Ines Ivan Jack Jane John Julia Karin Kevin Laura Leo Lily Lucy Marco Maria Mark Martin
    Mia Mina Nadia Nick Nina Oleg Olga Oscar Paul Peter Petra Rita Robert Rosa Ruth Sam Sara Simon Sofia Stella Tamara
    Thomas Tina Tom Vera Victor Walter Yuri Zoe
""".split()

RUSSIAN_NAMES = """
    Алексей Алиса Андрей Анна Антон Борис Вадим Валентина Вера Виктор Галина Глеб Дарья Денис Дмитрий Евгений Елена
    Зинаида Иван Игорь Ирина Кирилл Ксения Лариса Лев Людмила Максим Марина Мария Михаил Надежда Наталья Николай Нина
    Олег Ольга Павел Петр Роман Сергей Софья Степан Тамара Татьяна Федор Юлия Юрий Яков
""".split()

UNSEEN_NAMES = [
    "Albert",
    "Beatrice",
    "Gustav",
    "Helen",
    "Ingrid",
    "Jasper",
    "Miriam",
    "Oliver",
    "Quentin",
    "Ulrike",
]
UNSEEN_RUSSIAN_NAMES = [
    "Аркадий",
    "Богдан",
    "Василий",
    "Григорий",
    "Захар",
    "Инна",
    "Лидия",
    "Тимур",
    "Эмма",
    "Ярослав",
]

LABELS = """
    locker ticket order door gate garage parcel garden office safe alarm visitor printer cabinet bicycle room train
    concert library hotel phone laptop badge car boat box shelf account voucher coupon account router server meeting
    member invoice gift cellar window desk elevator
""".split()
UNSEEN_LABELS = ["attic", "pantry", "museum", "tractor", "wardrobe"]

# Russian labels stand in the genitive, as they follow the word for "code".
RUSSIAN_LABELS = """
    шкафчика билета заказа двери ворот гаража посылки сада офиса сейфа сигнализации гостя принтера шкафа велосипеда
    комнаты поезда концерта библиотеки гостиницы телефона ноутбука пропуска машины лодки ящика полки счета купона
    роутера сервера встречи подарка подвала окна стола лифта
""".split()
UNSEEN_RUSSIAN_LABELS = ["чердака", "кладовой", "музея", "трактора", "гардероба"]

_ONSETS = """
    b c d f g h j k l m n p r s t v w z br cl dr fl gr kr pl sh st th tr
""".split()
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "oo", "ou"]
_CODAS = ["", "", "", "n", "r", "s", "l", "t", "m", "ck", "nd"]
_RU_ONSETS = """
    б в г д ж з к л м н п р с т ф х ч ш бр гр др кл пл ст тр
""".split()
_RU_VOWELS = ["а", "е", "и", "о", "у", "ы", "я", "ю", "э"]
_RU_CODAS = ["", "", "", "н", "р", "с", "л", "т", "м", "к", "й"]


def pseudo_word(rng: random.Random, russian: bool = False) -> str:
    """A pronounceable lower-case word of one to three syllables that means nothing."""
    onsets, vowels, codas = (_RU_ONSETS, _RU_VOWELS, _RU_CODAS) if russian else (_ONSETS, _VOWELS, _CODAS)
    return "".join(rng.choice(onsets) + rng.choice(vowels) + rng.choice(codas) for _ in range(rng.choice((1, 2, 2, 3))))


def letters(rng: random.Random, russian: bool = False) -> str:
    """Two to nine random lower-case letters: what unseen words look like to the tokenizer."""
    alphabet = "абвгдежзийклмнопрстуфхцчшщъыьэюя" if russian else "abcdefghijklmnopqrstuvwxyz"
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(2, 9)))
