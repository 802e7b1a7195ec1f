from quicedge.program import main

main()
