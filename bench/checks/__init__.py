"""Checks of an evaluation: can its number be trusted?"""
