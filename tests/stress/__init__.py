"""Races: every guarantee under many threads, with thread switches as frequent as the interpreter allows."""
