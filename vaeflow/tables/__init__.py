"""Tables of papers: their cells, run or resumed, and their files."""
