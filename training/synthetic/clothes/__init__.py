"""Clothes, shoes and hair."""
