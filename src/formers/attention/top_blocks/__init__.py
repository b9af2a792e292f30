"""Blocks of keys chosen by content: the choice, the plan that it leads to, and that plan as visits."""
