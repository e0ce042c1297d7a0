from privkt.cli import main

main()
