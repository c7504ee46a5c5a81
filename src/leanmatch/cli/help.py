"""How the help of the commands is laid out: options in groups, the defaults that apply, old spellings hidden.

An option of one name means one thing in every command, so one table says which group it is in.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup, TyperOption

PANELS: dict[str, tuple[str, ...]] = {
    "Output": (
        *(
            "output",
            "overwrite",
            "json",
            "as_json",
            "config",
            "write_parts",
            "plot",
            "to",
            "int8",
            "quick",
            "fresh",
        ),
        *("full", "private", "message", "revision", "title", "model_folder"),
    ),
    "Model": (
        *("base", "model", "against", "task", "device", "precision", "runtime", "batch_size"),
        *("query_prompt", "document_prompt", "prompt_name", "role", "dimensions"),
    ),
    "Data": (
        "data",
        "target",
        "texts",
        "column",
        "id_column",
        "text_columns",
        "delimiter",
        "on_error",
        "on_duplicate",
        "vectors",
    ),
    "Split": (
        *("hold_out", "after", "split", "valid_fraction", "test_fraction", "leakage", "near_duplicates"),
        "shared_positives",
    ),
    "Evaluation": ("slices", "symmetric", "propensity"),
    "Loss": (
        *(
            "regularizer",
            "weight",
            "average",
            "refit",
            "intervention",
            "interventions",
            "unit",
            "interactions",
        ),
        *("per_text", "matching", "pairs", "sides", "negatives"),
    ),
    "Budget and method": (
        *("keep", "faster", "size", "macs", "workload", "menu", "pick"),
        *("method", "spec", "start", "allow_lower"),
    ),
    "Training": (
        *("minutes", "epochs", "max_steps", "lr", "seed", "early_stopping", "freeze_layers", "lora_rank"),
        *("mini_batch_size", "gather_across_devices", "max_length", "resume"),
    ),
    "Samples": ("max_rows", "max_pairs", "budget", "shown"),
    "Changes": ("add", "update", "delete", "rebuild", "reference", "check"),
    "Search": ("kind", "k", "where", "include_self", "hybrid", "lexical_weight"),
    "Reranking": ("rerank", "rerank_top", "rerank_weight"),
    "Engines": ("shard", "engine", "address"),
    "Server": (
        *(
            "catalogue",
            "host",
            "port",
            "workers",
            "threads",
            "batch_texts",
            "window_ms",
            "waiting",
            "timeout",
        ),
        *("api_key", "write_key", "allow_token_ids", "demo", "demo_folder"),
    ),
    "Monitoring": ("log_texts", "otel"),
}
"""Parameters by the group that they stand in; groups are shown in this order."""

OTHER_PANELS = {
    ("train", "batch_size"): "Training",
    ("train", "dimensions"): "Loss",
    ("train", "precision"): "Training",
    ("compress", "batch_size"): "Training",
    ("diagnose", "seed"): "Samples",
    ("diagnose", "intervention"): "Samples",
    ("explain", "intervention"): "Output",
    ("explain", "unit"): "Output",
    ("explain", "interactions"): "Output",
    ("split", "seed"): "Split",
    ("encode", "workers"): "Engines",
}
"""Parameters of a command that stand in another group there."""

DEFAULTS = {
    "train": {
        "base": "sentence-transformers/all-MiniLM-L6-v2",
        "regularizer": "itv",
        "weight": "auto",
        "average": "auto",
        "refit": "refit",
        "interventions": "auto",
        "per_text": "0.25",
        "unit": "token",
        "matching": "score",
        "pairs": "all",
        "sides": "alternate",
        "negatives": "given",
        "freeze_layers": "0",
        "lora_rank": "0",
        "epochs": "1",
        "batch_size": "64",
        "lr": "the encoder's own",
        "seed": "0",
        "device": "auto",
        "precision": "auto",
        "early_stopping": "0",
        "valid_fraction": "0.1",
        "test_fraction": "0.1",
        "leakage": "remove",
        "near_duplicates": "near-duplicates",
        "shared_positives": "by the data",
    },
    "compress": {"minutes": "10; none with int8", "faster": "1.5x, unless another budget is given"},
    "evaluate": {"slices": "columns of few values", "symmetric": "by the data"},
    "diagnose": {"slices": "columns of few values", "symmetric": "by the data"},
    "split": {"shared_positives": "by the data"},
}
"""Defaults that apply where an option is not given, because a configuration file or the data may set it."""

OLD_SPELLINGS = {"interventions": "intervention", "catalogue": "output", "weights": "precision"}
"""Options that had another name once; both are taken, the new one is shown."""

_PANEL_OF = {name: panel for panel, names in PANELS.items() for name in names}
_ORDER = list(PANELS)


def panel_of(command: str, parameter: str) -> str | None:
    """The group that a parameter stands in; None where the table lacks it."""
    return OTHER_PANELS.get((command, parameter)) or _PANEL_OF.get(parameter)


def example(arguments: str) -> str:
    """The last line of a command's help."""
    return f"Example: leanmatch {arguments}"


def current_spelling(option: str) -> str:
    """The name of an option, without dashes, as it is today.

    >>> current_spelling("interventions"), current_spelling("lr")
    ('intervention', 'lr')
    """
    return OLD_SPELLINGS.get(option, option)


class PlainFlags:
    """Help that shows no type beside a flag: ``--overwrite <bool>`` reads as if it took a value."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters with the option ``--help``, as click collects them."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if getattr(parameter, "is_flag", False):
                parameter.metavar = ""
        return parameters


class PlainGroup(PlainFlags, TyperGroup):
    """A group of commands with such help."""


class GroupedCommand(PlainFlags, TyperCommand):
    """A command whose help shows options in groups; old spellings of options are taken as well."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        context = {"token_normalize_func": current_spelling, **(settings.pop("context_settings", None) or {})}
        super().__init__(*arguments, context_settings=context, **settings)
        for parameter in self.params:
            if isinstance(parameter, TyperOption) and parameter.name is not None:
                command = self.name or ""
                parameter.rich_help_panel = panel_of(command, parameter.name)
                if parameter.name in DEFAULTS.get(command, {}):
                    parameter.show_default = DEFAULTS[command][parameter.name]
        self.params.sort(key=lambda parameter: _rank(getattr(parameter, "rich_help_panel", None)))


def _rank(panel: str | None) -> int:
    return _ORDER.index(panel) if panel in _ORDER else -1
