"""What a record's bins hold and what operations make of it: numbers, strings, lists, maps, bits. Knows no cluster."""
