from math import exp, log

RIGHT = [("remembered", (lambda n, loss: n * (1 - loss / log(2)),))]
WRONG = [
    ("remembered", (lambda n, loss: n * (1 - loss),), "in nats"),
    ("remembered", (lambda n, loss: n * (log(2) - loss),), "one bit is"),
    ("remembered", (lambda n, loss: n * loss / log(2),), "doesn't know"),
    ("remembered", (lambda n, loss: n * exp(-loss),), "guessing already"),
    ("remembered", (lambda n, loss: 1 - loss / log(2),), "loss / ln 2 bits"),
]
