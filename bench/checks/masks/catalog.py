"""The masks, by name. `gauntlet diagnose --masks` attacks all of them."""

from __future__ import annotations

from gauntlet.bench.checks import hidden_masks as hidden
from gauntlet.bench.checks.masks import activations, codes, committees, draws, neighbours, outputs, purification
from gauntlet.bench.checks.masks.mask import Mask

_BPDA = "Athalye, Carlini and Wagner 2018, arXiv 1802.00420"
_ADAPTIVE = "Tramèr et al. 2020, arXiv 2002.08347"
_SATURATED = "Carlini and Wagner 2016, arXiv 1607.04311"
_SQUEEZED = "Xu, Evans and Qi 2018, arXiv 1704.01155"
_BITS = "Guo et al. 2018, arXiv 1711.00117"
_bare = hidden.undefended

MASKS: tuple[Mask, ...] = (
    Mask("scaled_logits", "logits times 1,000", _SATURATED, hidden.scaled_logits, _bare),
    Mask("rounded_softmax", "probabilities of two decimals", _ADAPTIVE, hidden.rounded_softmax, _bare),
    Mask("softmax", "probabilities for logits", _ADAPTIVE, hidden.softmax, _bare),
    Mask("saturated_probabilities", "temperature 1/10,000", _SATURATED, outputs.saturated_probabilities, _bare),
    Mask("flattened_logits", "1 + logits / 1,000,000", _SATURATED, outputs.flattened_logits, _bare),
    Mask("hard_labels", "one-hot labels", "Papernot et al. 2017, arXiv 1602.02697", outputs.hard_labels, _bare),
    Mask("numpy_logits", "logits through numpy and back", _BPDA, outputs.numpy_logits, _bare),
    Mask(
        "label_smoothing",
        "trained with smooth labels, probabilities of one decimal",
        "Warde-Farley and Goodfellow 2016, Adversarial perturbations of deep neural networks",
        outputs.label_smoothing,
        outputs.label_smoothing_twin,
    ),
    Mask("detached_input", "the image is detached", _BPDA, hidden.detached_input, _bare),
    Mask("quantised_input", "pixels of three bits", _SQUEEZED, hidden.quantised_input, _bare),
    Mask("bytes_in", "pixels cast to bytes and back", _BITS, outputs.bytes_in, _bare),
    Mask(
        "saturated_input",
        "pixels through steep sigmoids",
        _BPDA,
        outputs.saturated_input,
        outputs.saturated_input_twin,
    ),
    Mask("false_gradient", "a false derivative between layers", _BPDA, outputs.false_gradient, _bare),
    Mask("false_rounding", "rounding that claims a false derivative", _BPDA, outputs.false_rounding, _bare),
    Mask("optimising", "ascent on the predicted class at test time", _ADAPTIVE, hidden.optimising, _bare),
    Mask(
        "purification",
        "the nearest image of a decoder, without gradient",
        "Samangouei, Kabkab and Chellappa 2018, arXiv 1805.06605",
        purification.purification,
        purification.purification_twin,
    ),
    Mask(
        "thermometer_codes",
        "pixels as thermometers",
        "Buckman et al. 2018, Thermometer encoding; broken in arXiv 1802.00420",
        codes.thermometer_codes,
        codes.thermometer_codes_twin,
    ),
    Mask(
        "discretised_pixels",
        "bucketize and one_hot of pixels",
        "Chen et al. 2019, arXiv 1805.07816",
        codes.discretised_pixels,
        codes.discretised_pixels_twin,
    ),
    Mask(
        "jump_activations",
        "activations with a jump",
        "Erichson et al. 2019, arXiv 1904.03750",
        activations.jump_activations,
        activations.jump_activations_twin,
    ),
    Mask(
        "quantised_activations",
        "activations of five levels",
        "Lin, Gan and Han 2019, arXiv 1904.08444",
        activations.quantised_activations,
        activations.quantised_activations_twin,
    ),
    Mask(
        "saturated_activations",
        "activations with nearly two values",
        "Nayebi and Ganguli 2017, arXiv 1703.09202; broken by Brendel and Bethge 2017, arXiv 1704.01547",
        activations.saturated_activations,
        activations.saturated_activations_twin,
    ),
    Mask(
        "k_winners",
        "only the largest activations",
        "Xiao, Zhong and Zheng 2020, arXiv 1905.10510; broken in arXiv 2002.08347",
        activations.k_winners,
        activations.k_winners_twin,
    ),
    Mask(
        "majority_vote",
        "labels of five networks",
        "He et al. 2017, arXiv 1706.04701",
        committees.majority_vote,
        committees.majority_vote_twin,
    ),
    Mask(
        "defensive_ensemble",
        "weighted labels of networks that see different images",
        "Liu et al. 2018, arXiv 1712.00673; broken in arXiv 1706.04701",
        committees.defensive_ensemble,
        committees.defensive_ensemble_twin,
    ),
    Mask(
        "binary_detectors",
        "ten detectors with thresholds",
        _ADAPTIVE,
        committees.binary_detectors,
        committees.binary_detectors_twin,
    ),
    Mask(
        "code_words",
        "agreement of signs with code words",
        "Verma and Swami 2019, Error correcting output codes; broken in arXiv 2002.08347",
        committees.code_words,
        committees.code_words_twin,
    ),
    Mask(
        "feature_neighbours",
        "labels of the nearest training features",
        "Papernot and McDaniel 2018, arXiv 1803.04765; broken in arXiv 1903.08333",
        neighbours.feature_neighbours,
        neighbours.feature_neighbours_twin,
    ),
    Mask(
        "pixel_neighbours",
        "labels of the nearest training images, whitened",
        "Sitawarin and Wagner 2019, arXiv 1903.08333",
        neighbours.pixel_neighbours,
        neighbours.pixel_neighbours_twin,
    ),
    Mask(
        "noisy_input",
        "noise on the image",
        "Cohen, Rosenfeld and Kolter 2019, arXiv 1902.02918",
        hidden.noisy_input,
        draws.noisy_input_twin,
        randomised=True,
    ),
    Mask(
        "noisy_vote",
        "labels of sixteen noisy copies",
        "Cao and Gong 2017, arXiv 1709.05583",
        draws.noisy_vote,
        draws.noisy_vote_twin,
        randomised=True,
    ),
    Mask(
        "random_transforms",
        "random scale and shift, then rounding",
        "Xie et al. 2018, arXiv 1711.01991; broken in arXiv 1802.00420",
        draws.random_transforms,
        draws.random_transforms_twin,
        randomised=True,
    ),
    Mask(
        "activation_noise",
        "noise on activations",
        "Liu et al. 2018, arXiv 1712.00673",
        draws.activation_noise,
        draws.activation_noise_twin,
        randomised=True,
    ),
    Mask(
        "stochastic_pruning",
        "activations pruned by lot",
        "Dhillon et al. 2018, arXiv 1803.01442; broken in arXiv 1802.00420",
        draws.stochastic_pruning,
        draws.stochastic_pruning_twin,
        randomised=True,
    ),
    Mask(
        "drawn_member",
        "one of five networks, drawn in each pass",
        "Sengupta, Chakraborti and Kambhampati 2018, arXiv 1705.07213",
        committees.drawn_member,
        committees.drawn_member_twin,
        randomised=True,
    ),
)
