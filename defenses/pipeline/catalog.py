"""All defenses at inference by name, as lazy `module:object` entries. Listing them imports nothing.

To add a defense, write its module in `gauntlet.defenses` and add its name here.
"""

from __future__ import annotations

DEFENSES: dict[str, str] = {
    name: f"gauntlet.defenses.{name}:ENTRY"
    for name in (
        "none",
        # on the input
        "bit_depth",
        "input_noise",
        "jpeg",
        "median",
        "random_resize_pad",
        "thermometer",
        "total_variation",
        # on the output
        "class_labels",
        "high_confidence",
        "output_noise",
        "reverse_sigmoid",
        "rounded",
        "scaled",
        # around the model
        "confidence_detector",
        "ensemble",
        "purify",
        "smoothing",
        "squeeze_detector",
    )
}
