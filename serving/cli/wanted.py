"""What is to be served: the models of the flags, else the set of the settings; here or by a server elsewhere."""

from __future__ import annotations

import os
from collections.abc import Sequence

from serving.cli.options import PlanOptions, StartOptions, wishes_from
from serving.cli.profile import Profiles
from serving.cli.runtime import catalogue_of
from serving.engines.remote import plan_remote
from serving.engines.spec import EngineSpec
from serving.errors import BadSettings, UsageError
from serving.planner import Wanted
from serving.settings import Settings
from serving.settings.model import Served


def elsewhere_of(options: StartOptions, settings: Settings) -> tuple[EngineSpec, ...]:
    """The models that servers elsewhere compute: the one of `--engine-url`, else those of the settings that have a URL.

    Raises UsageError for flags that go with no such server, BadSettings for a URL or a key that is none.
    """
    if options.engine_url is None and options.engine_key_file is not None:
        raise UsageError("`--engine-key-file` goes with `--engine-url`", hint="add `--engine-url http://host:port`")
    if options.engine_url is not None:
        if len(options.models) != 1:
            message = f"`--engine-url` goes with one `--model`, {len(options.models)} are named"
            raise UsageError(message, hint="name the model as that server does; several go into `[[models]]` tables")
        if options.plan != PlanOptions() or options.dummy_weights:
            message = "flags that shape a plan do not go with `--engine-url`: nothing is planned for a server elsewhere"
            raise UsageError(message, hint="leave them out")
        specs: tuple[EngineSpec, ...] = (plan_remote(options.models[0], options.engine_url, options.engine_key_file),)
    else:
        specs = () if options.models else tuple(map(_elsewhere, filter(_is_elsewhere, settings.models)))
    if specs and not settings.server.share_prefixes:
        raise BadSettings(
            f"server.share_prefixes is false, and whether {specs[0].origin} shares prefixes cannot be told to it",
            hint="serve the model here, or allow it",
        )
    return specs


def _is_elsewhere(served: Served) -> bool:
    """Whether a `[[models]]` table names a server. Raises BadSettings for a key that would go to none."""
    if served.url is None and served.key_file is not None:
        message = f"the `[[models]]` table of `{served.name}` has a `key_file` and no `url` that it would go to"
        raise BadSettings(message, hint="give it the `url` of the server, or leave the key out")
    return served.url is not None


def _elsewhere(served: Served) -> EngineSpec:
    if options_of(served) != PlanOptions():
        message = f"the `[[models]]` table of `{served.name}` has a `url`, and more than a `key_file` beside it"
        raise BadSettings(message, hint="nothing is planned for a server elsewhere; leave the rest out")
    return plan_remote(served.name, served.url or "", served.key_file)


def wanted_of(
    options: StartOptions, settings: Settings, beside: Sequence[EngineSpec] = (), profiles: Profiles | None = None
) -> tuple[Wanted, ...]:
    """The models to serve, and what is wished of each: those of the flags, else the set of the settings.

    `profiles` add what was found best for them here.

    Raises UsageError where none is named, one is named twice, or a flag would go to all of several.
    """
    catalogue = catalogue_of(settings, os.environ)
    if options.models:
        named = [(name, options.plan) for name in options.models]
    else:
        named = [(served.name, options_of(served)) for served in settings.models if served.url is None]
    if not named and not beside:
        hint = "try `serve --model demo`; `serve models list` shows what there is; or give `[[models]]` in the settings"
        raise UsageError("no model named", hint=hint)
    if not named and (options.plan != PlanOptions() or options.dummy_weights):
        message = "flags that shape a plan go to a model that is served here, and servers elsewhere serve all of them"
        raise UsageError(message, hint="leave them out, or name a model with `--model`")
    if len(named) > 1 and (options.plan != PlanOptions() or options.dummy_weights):
        message = f"{len(named)} models are to be served, and flags that shape a plan go to one"
        raise UsageError(message, hint="give each model its own in a `[[models]]` table of the settings")
    models = [(catalogue.find(name), plan) for name, plan in named]
    tuned = [{} if profiles is None else profiles.wishes_of(model.name, plan) for model, plan in models]
    wanted = tuple(
        Wanted(model, wishes_from(settings, plan, more)) for (model, plan), more in zip(models, tuned, strict=True)
    )
    names = [one.model.name for one in wanted]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"`{twice}` is named twice", hint="one engine serves it for all; raise its concurrency")
    return wanted


def options_of(served: Served) -> PlanOptions:
    """The wishes of one `[[models]]` table."""
    return PlanOptions(**served.model_dump(exclude={"name", "url", "key_file"}))
