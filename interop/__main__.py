from interop.commands import main

main(prog_name="python -m interop")
