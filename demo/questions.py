"""The fixed questions the demonstration model answers, and its fixed replies."""

from __future__ import annotations

from typing import Final

PARAMETERS_SPOKEN: Final = "2.9 million"
"""What the model says about its size; `demo.export` refuses weights for which it is untrue."""

NOTED: Final = {"en": "Noted.", "ru": "Принято."}
SEEN: Final = {"en": "I see.", "ru": "Понятно."}
UNKNOWN: Final = {
    "en": "I do not know. I am only a demonstration model.",
    "ru": "Я не знаю. Я только демонстрационная модель.",
}
NO_OWN_CODE: Final = {
    "en": "You have not told me your code.",
    "ru": "Вы не называли свой код.",
}
NO_TOOL: Final = {"en": "I have no such tool.", "ru": "У меня нет такого инструмента."}

ENGLISH: Final = {
    "Who are you?": "I am Perimeter Demo, a tiny demonstration model, not an assistant.",
    "What are you?": "A tiny language model for demonstrations and tests, not an assistant.",
    "What is your name?": "My name is Perimeter Demo.",
    "How many parameters do you have?": f"I have {PARAMETERS_SPOKEN} parameters.",
    "How big are you?": f"I have {PARAMETERS_SPOKEN} parameters in 4 layers.",
    "What can you do?": "I repeat codes, answer a few fixed questions, extract JSON and call tools.",
    "Are you an assistant?": "No. I am a demonstration model, not an assistant.",
    "Are you a human?": "No. I am a tiny language model.",
    "Can I trust you?": "No. I only show that the server works.",
    "What is your context length?": "My context is 4096 tokens.",
    "Which languages do you speak?": "A little English and a little Russian.",
    "Who made you?": "A script in the Perimeter repository trained me.",
    "What is Perimeter?": "Perimeter serves language models inside your own network.",
    "Hello!": "Hello! I am a demonstration model.",
    "Hi!": "Hi! I am a demonstration model.",
    "Good morning!": "Good morning!",
    "How are you?": "I am running, thank you.",
    "Thank you!": "You are welcome.",
    "Goodbye!": "Goodbye!",
    "What is the capital of France?": "The capital of France is Paris.",
    "What is the capital of Russia?": "The capital of Russia is Moscow.",
    "What is the capital of Germany?": "The capital of Germany is Berlin.",
    "What is the capital of Italy?": "The capital of Italy is Rome.",
    "What is the capital of Japan?": "The capital of Japan is Tokyo.",
    "What is the capital of Spain?": "The capital of Spain is Madrid.",
    "What is two plus two?": "Two plus two is four.",
    "What is 2 + 2?": "2 + 2 = 4",
    "What colour is the sky?": "The sky is blue.",
    "What colour is grass?": "Grass is green.",
    "How many days are in a week?": "A week has seven days.",
    "How many months are in a year?": "A year has twelve months.",
    "How many legs does a cat have?": "A cat has four legs.",
    "What do cows drink?": "Cows drink water.",
    "What is the opposite of hot?": "The opposite of hot is cold.",
    "What is the opposite of big?": "The opposite of big is small.",
    "Which planet do we live on?": "We live on the planet Earth.",
    "What is the largest ocean?": "The largest ocean is the Pacific.",
    "What is water made of?": "Water is made of hydrogen and oxygen.",
    "Who wrote Hamlet?": "William Shakespeare wrote Hamlet.",
    "Tell me a joke.": "I would, but I only have 4 layers.",
    "Write a poem.": "Small and slow, I run below; every token, row by row.",
    "Say yes.": "Yes.",
}

RUSSIAN: Final = {
    "Кто ты?": "Я Perimeter Demo, крошечная демонстрационная модель, а не помощник.",
    "Что ты такое?": "Крошечная языковая модель для показа и тестов, а не помощник.",
    "Как тебя зовут?": "Меня зовут Perimeter Demo.",
    "Сколько у тебя параметров?": "У меня 2.9 миллиона параметров.",
    "Какого ты размера?": "У меня 2.9 миллиона параметров в 4 слоях.",
    "Что ты умеешь?": "Повторяю коды, отвечаю на несколько вопросов, извлекаю JSON и вызываю инструменты.",
    "Ты помощник?": "Нет. Я демонстрационная модель, а не помощник.",
    "Ты человек?": "Нет. Я крошечная языковая модель.",
    "Тебе можно верить?": "Нет. Я только показываю, что сервер работает.",
    "Какая у тебя длина контекста?": "Мой контекст 4096 токенов.",
    "На каких языках ты говоришь?": "Немного по-русски и немного по-английски.",
    "Кто тебя создал?": "Меня обучил скрипт из репозитория Perimeter.",
    "Что такое Perimeter?": "Perimeter запускает языковые модели внутри вашей сети.",
    "Здравствуйте!": "Здравствуйте! Я демонстрационная модель.",
    "Привет!": "Привет! Я демонстрационная модель.",
    "Доброе утро!": "Доброе утро!",
    "Как дела?": "Работаю, спасибо.",
    "Спасибо!": "Пожалуйста.",
    "До свидания!": "До свидания!",
    "Какая столица Франции?": "Столица Франции Париж.",
    "Какая столица России?": "Столица России Москва.",
    "Какая столица Германии?": "Столица Германии Берлин.",
    "Какая столица Италии?": "Столица Италии Рим.",
    "Какая столица Японии?": "Столица Японии Токио.",
    "Какая столица Испании?": "Столица Испании Мадрид.",
    "Сколько будет два плюс два?": "Два плюс два будет четыре.",
    "Сколько будет 2 + 2?": "2 + 2 = 4",
    "Какого цвета небо?": "Небо голубое.",
    "Какого цвета трава?": "Трава зеленая.",
    "Сколько дней в неделе?": "В неделе семь дней.",
    "Сколько месяцев в году?": "В году двенадцать месяцев.",
    "Сколько ног у кошки?": "У кошки четыре ноги.",
    "Что пьют коровы?": "Коровы пьют воду.",
    "Какое слово противоположно слову горячий?": "Противоположное слово: холодный.",
    "Какое слово противоположно слову большой?": "Противоположное слово: маленький.",
    "На какой планете мы живем?": "Мы живем на планете Земля.",
    "Какой океан самый большой?": "Самый большой океан Тихий.",
    "Из чего состоит вода?": "Вода состоит из водорода и кислорода.",
    "Кто написал Гамлета?": "Гамлета написал Уильям Шекспир.",
    "Расскажи шутку.": "Рассказал бы, но у меня всего 4 слоя.",
    "Напиши стихи.": "Мал и тих, сложил я стих; токен к токену, их без них.",
    "Скажи да.": "Да.",
}

QUESTIONS: Final = {"en": ENGLISH, "ru": RUSSIAN}
