"""Persona-based jailbreaks: public harmful requests behind personas, with and without caps, by a judge checked against people."""
