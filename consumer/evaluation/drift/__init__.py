"""Has live traffic moved away from what the models were trained on?

`reference` is training as the export tells it, `counting` puts live rows into training's frozen bins, `measures` are
the formulas, `judge` says what they amount to. All but counting works on counts: a year costs no more than a day.
"""
