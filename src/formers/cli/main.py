"""From words to a subcommand, and from whatever goes wrong to one message and an exit code."""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

from formers.cli.parser import Parser
from formers.errors import FormersError

# Told here, so that `formers --help` loads none of them.
COMMANDS = {
    "list": "every member of the family",
    "show": "a model's parts, what they cost, and what its attention sees",
    "gallery": "pictures of what attention sees in every member",
    "check": "everything that is wrong with a spec file, each with its mend",
    "plan": "what training or decoding a model would take, before it is paid for",
    "train": "train a model on text",
    "eval": "bits per byte and perplexity of a trained model",
    "generate": "write with a trained model, as a stream",
    "calibrate": "how early tokens may leave a model, with a promise of what that risks",
    "datastore": "a store of contexts and what followed them, for eval, generate and train",
    "demo": "train a small model on real text in two minutes, and see how it does",
    "convert": "another model of a trained one: for long texts, or its sparse counterpart",
    "import": "a model in Hugging Face's format, as a run folder",
    "export": "a run, in Hugging Face's format",
    "control": "models that act: record trajectories, train, and act in an environment",
    "bench": "measure speed against rivals",
    "claim": "the experiments that show what the papers claim",
}
MISTAKE, MISUSE, INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Exit code 0 if all went well, 1 for a mistake in what was given, 2 for misuse, 130 on Ctrl-C.

    A bug is not caught: its traceback is wanted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    _replace_what_cannot_be_printed()
    try:
        code = _dispatch(words)
        sys.stdout.flush()
    except SystemExit as done:  # how argparse ends, after having said why
        code = done.code if isinstance(done.code, int) else MISUSE
    except FormersError as error:
        code = _complain(str(error))
    except KeyboardInterrupt:
        code = _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:
        code = _complain("whoever was reading the output has gone; the rest of it was not written")
    except OSError as error:
        code = _complain(_told(error))
    except (MemoryError, RuntimeError) as error:
        if not _is_lack_of_memory(error):
            raise
        code = _complain("there is not enough memory for this; give a smaller model, batch or length")
    _abandon_unwritable_output()
    return code


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_overview(), file=sys.stdout if words else sys.stderr)
        return 0 if words else MISUSE
    if words[0] == "--version":
        from formers import __version__

        print(f"formers {__version__}")
        return 0
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "one of " + ", ".join(COMMANDS)
        return _complain(f"there is no command {words[0]!r}; {hint}", MISUSE)
    name = words[0]
    command = importlib.import_module("formers.cli." + (f"{name}_" if name == "import" else name))
    parser = Parser(name, COMMANDS[name], command.EXAMPLES)
    command.declare(parser)
    return command.run(parser.parse(words[1:])) or 0


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {told}" for name, told in COMMANDS.items()]
    return "\n".join(
        [
            "usage: formers [--help] [--version] COMMAND ...",
            "",
            "The whole Transformer family in one library.",
            "",
            "commands:",
            *lines,
            "",
            "formers COMMAND --help tells about one of them. Begin with: formers demo",
        ]
    )


def _complain(message: str, code: int = MISTAKE) -> int:
    print(f"formers: {message}", file=sys.stderr)
    return code


def _told(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename else reason


def _is_lack_of_memory(error: Exception) -> bool:
    told = str(error)
    return isinstance(error, MemoryError) or "out of memory" in told or "DefaultCPUAllocator" in told


def _replace_what_cannot_be_printed() -> None:
    """A terminal that has no blocks or superscripts shows question marks, and is no reason to stop."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def _abandon_unwritable_output() -> None:
    """What is left in the buffer of a closed pipe or a full disk must not fail again when Python exits."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
