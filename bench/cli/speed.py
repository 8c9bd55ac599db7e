"""`gauntlet speed`: native attacks beside those of other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gauntlet.bench.cli.shared.options import RESUMABLE, command, load_plugins_named, option, plugin_option, run_option


@command(
    arguments={"ROWS": "Patterns of rows, such as 'PGD*'. [default: all, which takes about an hour]"},
    failed="An attack failed, or a file cannot be written.",
    interrupted="Interrupted: the tables have what was measured before.",
    exits=RESUMABLE,
)
@click.argument("rows", metavar="[ROWS…]", nargs=-1)
@run_option(
    "model",
    multiple=False,
    help="Model, named as for `gauntlet run`. [default: cnn.pgd_digits; with --device cuda four networks of usual kinds]",
)
@run_option("data", default="digits", help="Data set, named as for `gauntlet run`.")
@run_option("samples")
@option(
    "--linf",
    group="attack",
    type=float,
    metavar="EPS",
    help="Radius of the rows with norm Linf. [default: 0.15; 0.2 with --simulate]",
)
@option("--l2", group="attack", default=0.8, metavar="EPS", help="Radius of the rows with norm L2.")
@option(
    "--peers",
    group="attack",
    default="*",
    metavar="PATTERN",
    help="Libraries to compare with, such as torchattacks.",
)
@option("--rounds", group="attack", default=5, metavar="N", help="Number of rounds, each with its own seed.")
@run_option("out", default="gauntlet-speed", type=click.Path(path_type=Path), help="Folder for the tables.")
@run_option("device", default="auto", help="Device: auto (a GPU if available), cpu, cuda or cuda:1.")
@option("--batch-size", group="machine", default=256, metavar="N", help="Number of samples attacked at once.")
@option("--threads", group="machine", default=1, metavar="N", help="Number of CPU threads.")
@option(
    "--minutes",
    group="machine",
    default=10.0,
    metavar="N",
    help="Time for the four networks; what does not fit is named as not run.",
)
@option(
    "--small",
    group="machine",
    is_flag=True,
    help="Tiny networks on the CPU in place of the four, to try the measurement.",
)
@option(
    "--simulate",
    group="machine",
    metavar="GPU",
    help="Price the recorded passes for that GPU (h200) in place of timing; the result is simulated. [default: none]",
)
@plugin_option()
def speed(
    out: Path,
    plugins: tuple[str, ...],
    simulate: str | None,
    linf: float | None,
    model: str | None,
    minutes: float,
    small: bool,
    **options: Any,
) -> None:
    """Time native attacks beside those of other libraries.

    All attacks face the same samples, with the same budget. With `--device cuda` and without a model, whole evaluations of a
    small CNN, a WRN-28-10, a ResNet-50 and a ViT-S are timed in at most ten minutes.
    """
    from gauntlet.bench.environment.device import choose_device
    from gauntlet.bench.speed.compare_networks import NetworksConfig, compare_networks
    from gauntlet.bench.speed.compare_speed import SpeedConfig, compare_speed
    from gauntlet.bench.speed.simulate import simulate_speed

    load_plugins_named(plugins)

    def progress(line: str) -> None:
        click.echo(line, err=True)

    options = {**options, "model": model or "cnn.pgd_digits"}
    if simulate is not None:
        # At this radius the adversarially trained digits' CNN stands on half of the images.
        radius = 0.2 if linf is None else linf
        device = "cpu" if options["device"] == "auto" else options["device"]
        setup = SpeedConfig(**{**options, "linf": radius, "device": device})
        click.echo(simulate_speed(setup, simulate, out, progress))
        click.echo(f"written (simulated): {out / 'speed-simulated.md'}, {out / 'speed-simulated.csv'}")
        return
    if small or (model is None and str(options["device"]).startswith("cuda")):
        device = choose_device("cpu" if small and options["device"] == "auto" else options["device"])
        networks = NetworksConfig(device, options["rows"], options["peers"], minutes, small, options["threads"])
        click.echo(compare_networks(networks, out, progress))
        click.echo(f"written: {out / 'speed-networks.md'}, {out / 'speed-networks.csv'}")
        return
    setup = SpeedConfig(**options) if linf is None else SpeedConfig(**options, linf=linf)
    click.echo(compare_speed(setup, out, progress))
    click.echo(f"written: {out / 'speed.md'}, {out / 'speed.csv'}")
