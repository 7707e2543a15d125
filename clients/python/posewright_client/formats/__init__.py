"""Results in other tools' formats: `recording` reads the JSON lines of this package, one module a format writes."""
