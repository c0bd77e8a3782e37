"""Continuous families as pure functions: probability paths, predictions, times, the ODE, samplers, guidance, edits, couplings, flow maps;
and discrete ones: corruptions of categories, their noise schedules.

Everything is for one example (couplings and stratified times: for a batch) and knows no parameters: a network enters as
predict: (x, t) -> Prediction. The laws (tests/test_diffusion_*.py) run over every entry of the registries.
"""

from __future__ import annotations

from vaeflow.build import part_kind
from vaeflow.diffusion.categorical import Corruption
from vaeflow.diffusion.corruptions import CORRUPTIONS
from vaeflow.diffusion.coupling import COUPLINGS, BatchCoupling
from vaeflow.diffusion.edits import EDITS, Edit
from vaeflow.diffusion.flow_map import MAP_LOSSES, MAP_TARGETS, MapLoss, MapTarget
from vaeflow.diffusion.kinds import KINDS, WEIGHTINGS, PredictionKind, Weighting
from vaeflow.diffusion.map_form import MAP_FORMS, MapForm
from vaeflow.diffusion.noise_schedules import NOISE_SCHEDULES, NoiseSchedule
from vaeflow.diffusion.path import PATHS, ProbabilityPath
from vaeflow.diffusion.steps import STEPS
from vaeflow.diffusion.times import TIMES, TimeCoordinate
from vaeflow.diffusion.walk import Sampler

part_kind(ProbabilityPath, "path", PATHS)
part_kind(PredictionKind, "prediction kind", KINDS)
part_kind(Weighting, "weighting", WEIGHTINGS)
part_kind(TimeCoordinate, "time coordinate", TIMES)
part_kind(Sampler, "sampler", STEPS)
part_kind(BatchCoupling, "coupling", COUPLINGS)
part_kind(Edit, "edit", EDITS)
part_kind(MapTarget, "flow-map target", MAP_TARGETS)
part_kind(MapLoss, "flow-map loss", MAP_LOSSES)
part_kind(MapForm, "flow-map form", MAP_FORMS)
part_kind(Corruption, "corruption", CORRUPTIONS)
part_kind(NoiseSchedule, "noise schedule", NOISE_SCHEDULES)
