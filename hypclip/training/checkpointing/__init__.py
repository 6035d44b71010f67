"""Everything a run needs to go on: what is kept, how it is written, and what an output directory holds."""
