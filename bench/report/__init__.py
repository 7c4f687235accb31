"""Tables, statistics, figures and the report. Reads only a results directory; imports no torch."""
