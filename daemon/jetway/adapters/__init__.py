"""Adapters: one technology each, its errors translated; they decide nothing."""
