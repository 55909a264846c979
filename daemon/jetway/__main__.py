"""`python -m jetway`."""

from jetway.cli import main

main()
