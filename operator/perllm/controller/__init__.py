"""The life of a task: from its creation to its learned outcome."""
