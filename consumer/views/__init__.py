"""The questions that people ask of what is stored, a module each: plain functions that API and dashboard both call, so
that their numbers agree.
"""
