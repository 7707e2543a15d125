"""Dress bodies in clothes, shoes and hair."""
