"""Doors: parse, call one service, render. Nothing is decided here."""
