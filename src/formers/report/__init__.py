"""Figures as rows, tables and JSON: what benchmarks and claims share when they tell what they measured."""
