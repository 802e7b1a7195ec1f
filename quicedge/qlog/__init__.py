"""Analysis of qlog traces: load, analyse, plot, report. Imports nothing of the running edge."""
