from quicedge.cli import main

main()
