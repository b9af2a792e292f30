"""The model that the words of a command name: a member with arguments, a spec file, or a run; then changed by paths."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from formers.cli.parser import Parser
from formers.control.agent.model import Agent
from formers.control.decision import DecisionTransformer
from formers.encoder_decoder import EncoderDecoder
from formers.errors import ConfigError
from formers.family import ACTORS, MEMBERS, Member
from formers.family.registry import find_member, preset_of
from formers.model import TokenModel
from formers.spec import Spec, assign, check, from_json, parse
from formers.spec.codec import mean
from formers.spec.fields import describe, fits


def declare_model(parser: Parser, *, optional: bool = False) -> None:
    """The words and options that name a model."""
    parser.add_argument(
        "model", nargs="?" if optional else None, metavar="MODEL", help="a member, a spec file, or a run"
    )
    parser.add_argument("arguments", nargs="*", metavar="NAME=VALUE", help="arguments of the member, such as depth=4")
    told = "a size that the member is known in, such as 17b of scaling_transformer; NAME=VALUE goes before it"
    parser.add_argument("--preset", metavar="NAME", help=told)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        dest="assignments",
        help="change a field of the spec, such as blocks[*].sublayers[0].heads=16; may be repeated",
    )


def chosen_model(options: argparse.Namespace, *, actors: bool = False, **defaults: Any) -> Any:
    """The spec that the options name. defaults: of a member's arguments, where it has them and none are given.
    actors: take models that read no tokens, too.

    Raises ConfigError for whatever does not exist or does not fit, with what was probably meant.
    """
    if options.model in MEMBERS | ACTORS:
        spec = member_spec(options.model, options.arguments, {**defaults, **preset_of(options.model, options.preset)})
    else:
        spec = read_spec(options.model)
        if options.preset is not None:
            raise ConfigError(f"--preset {options.preset}: only members have presets; {options.model} is as it is")
        if options.arguments:
            raise ConfigError(
                f"{options.arguments[0]!r}: only members take arguments; change a spec by --set path=value"
            )
    for assignment in options.assignments:
        _require_path(options.model, spec, assignment)
        spec = assign(spec, assignment)
    if isinstance(spec, DecisionTransformer) and not actors:
        raise ConfigError(
            f"{options.model} learns from trajectories and acts, and reads no tokens: see formers control"
        )
    if isinstance(spec, Agent):
        raise ConfigError(f"{options.model} acts by what it observes, and reads no tokens: see formers control")
    if not isinstance(spec, (TokenModel, EncoderDecoder, DecisionTransformer)):
        raise ConfigError(f"{options.model} holds a {type(spec).__name__}, which is a part and not a whole model")
    return spec


def require_buildable(spec: Any) -> None:
    """Raise ConfigError with all that is wrong with a model's spec."""
    side = spec.target if isinstance(spec, EncoderDecoder) else spec
    check(spec, side.site, spec.name)


def read_spec(name: str) -> Any:
    """The spec in a file, or of a run folder. Raises ConfigError if there is none, or everything that is wrong in it."""
    path = Path(name)
    if path.is_dir():
        path = path / "spec.json"
    if not path.is_file():
        raise ConfigError(_missing(name, path))
    try:
        return from_json(path.read_text(encoding="utf-8-sig"), name)
    except UnicodeDecodeError:
        raise ConfigError(
            f"{path} is not text: name a spec as JSON, such as `formers show gpt2 --json` prints"
        ) from None
    except RecursionError:
        raise ConfigError(f"{path} is nested deeper than any spec") from None


def _missing(name: str, path: Path) -> str:
    if path.name == "spec.json" and path.parent.is_dir() and path != Path(name):
        return f"{name} is a folder without a spec.json; name a run, a spec file, or a member"
    if "/" in name or "\\" in name or name.endswith(".json"):
        return f"there is no file {name}"
    if name in MEMBERS | ACTORS:
        return f"{name} is a member, and a file is asked for: formers show {name} --json > {name}.json writes one"
    return f"there is neither a member nor a file named {name!r}: {mean(name, MEMBERS | ACTORS)} (formers list)"


def member_spec(name: str, words: Sequence[str], defaults: Mapping[str, Any]) -> Any:
    """The spec of a member with arguments as words, such as depth=4, over defaults, of which it may not have all.

    Raises ConfigError for a word that does not fit.
    """
    return spec_of(find_member(name), words, defaults)


def spec_of(member: Member, words: Sequence[str], defaults: Mapping[str, Any]) -> Any:
    """The same of a member that need not be registered."""
    known, types = member.arguments, get_type_hints(member.make)
    values = {key: value for key, value in defaults.items() if key in known}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"{word!r} is no argument: write name=value, with one of {', '.join(known)}")
        if key not in known:
            path = "; a path into the spec is set by --set" if set(key) & {".", "["} else ""
            raise ConfigError(f"{member.name} has no argument {key!r}: {mean(key, known)}{path}")
        values[key] = parse(text)
        if not fits(values[key], types[key]):
            raise ConfigError(f"{word}: {values[key]!r} is not {describe(types[key])}")
    return member.make(**values)


def _require_path(name: str, spec: Spec, assignment: str) -> None:
    """Arguments of a member are easily taken for fields of its spec."""
    field = assignment.partition("=")[0].strip()
    if name in MEMBERS | ACTORS and field in find_member(name).arguments and not hasattr(spec, field):
        raise ConfigError(f"{field} is an argument of {name} and no field of its spec: write it without --set")
