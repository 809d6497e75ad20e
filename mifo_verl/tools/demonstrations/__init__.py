"""Demonstrations made online: a stronger model behind an endpoint answers, and only what verifies is kept."""
