"""What values show in notebooks. Importing this package registers the displays; nothing heavy is imported.

A display is short: one headline, one figure or one table, never thousands of numbers. All words are escaped. What a value
shows is said by a function in one of the modules here, which returns a `frame.Display`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workbench.base.display import register

# Class -> "module.function" of this package.
DISPLAYS = {
    "models.model.Model": "saes.model_display",
    "models.catalogue.Assets": "saes.assets_display",
    "saes.interface.SparseAutoencoder": "saes.sae_display",
    "saes.registry.Shelf": "saes.saes_display",
    "saes.evaluation.gate.Gate": "saes.gate_display",
    "saes.evaluation.fitness.Fitness": "saes.fitness_display",
    "saes.evaluation.card.EvaluationCard": "saes.card_display",
    "personas.traits.Trait": "personas.trait_display",
    "personas.exchange.Imported": "personas.imported_display",
    "personas.rollouts.RolloutDesign": "personas.design_display",
    "personas.rollouts.Rollouts": "personas.rollouts_display",
    "personas.vectors.PersonaVector": "personas.vector_display",
    "personas.formats.layered.LayeredVectors": "personas.layered_display",
    "personas.geometry.Geometry": "personas.geometry_display",
    "personas.panel.Panel": "personas.panel_display",
    "personas.comparison.Comparison": "personas.comparison_display",
    "personas.transfer.Transfer": "personas.transfer_display",
    "personas.placebos.PlaceboVectors": "personas.placebos_display",
    "decomposition.result.Decomposition": "parts.parts_display",
    "decomposition.falsify.result.Falsification": "parts.falsification_display",
    "decomposition.grouping.groups.Grouping": "parts.grouping_display",
    "decomposition.comparison.overlap.TraitComparison": "parts.overlap_display",
    "decomposition.comparison.dictionaries.DictionaryComparison": "parts.dictionaries_display",
    "decomposition.comparison.change.BeforeAfter": "parts.change_display",
    "lab.result.LabResult": "lab.lab_display",
    "lab.result.LabRow": "lab.row_display",
    "lab.mixture_study.MixtureResult": "lab.mixtures_display",
    "lab.difficulties.Difficulty": "lab.difficulty_display",
    "lab.world.World": "lab.world_display",
    "lab.experiment.Experiment": "lab.experiment_display",
    "lab.methods.Trial": "lab.trial_display",
    "lab.methods.Findings": "lab.findings_display",
    "lab.dictionaries.Truth": "lab.truth_display",
    "lab.mixtures.Answers": "lab.answers_display",
    "lab.sub_personas.SubPersonas": "lab.sub_personas_display",
    "labeling.labels.LabelSet": "labels.labels_display",
    "labeling.labels.FeatureLabel": "labels.label_display",
    "labeling.labels.FeatureRecord": "labels.record_display",
    "labeling.evidence.FeatureEvidence": "labels.evidence_display",
    "labeling.evidence.Context": "labels.context_display",
    "labeling.contexts.index.FeatureIndex": "labels.index_display",
    "labeling.contexts.reading.Collection": "labels.collection_display",
    "labeling.views.view.FeatureView": "features.view_display",
    "labeling.views.view.FeatureViews": "features.views_display",
    "labeling.scores.scoring.LabelScore": "labels.label_score_display",
    "labeling.scores.comparison.ScoreTable": "labels.score_table_display",
    "labeling.scores.comparison.ExplainerVerdict": "labels.verdict_display",
    "labeling.scores.closed_loop.ClosedLoop": "labels.loop_display",
    "labeling.annotating.agreement.Agreement": "labels.agreement_display",
    "labeling.files.merge.Merged": "labels.merged_display",
    "labeling.taxonomy.values.MadeOf": "parts.made_of_display",
    "steering.cost.pareto.Front": "cost.front_display",
    "steering.cost.sweep.Sweep": "cost.sweep_display",
    "steering.cost.sweep.Cell": "cost.cell_display",
    "steering.cost.replies.Replies": "cost.replies_display",
    "steering.cost.capability.Capability": "cost.capability_display",
    "steering.cost.capability.Exam": "cost.exam_display",
    "steering.diff.result.ModelDiff": "diff.diff_display",
    "steering.diff.features.Installed": "diff.installed_display",
    "steering.diff.lens.DifferenceLens": "diff.lens_display",
    "steering.diff.rotation.Rotation": "diff.rotation_display",
    "steering.screen.screening.Screening": "screen.screening_display",
    "steering.screen.scores.DataScores": "screen.scores_display",
    "steering.screen.scores.Samples": "screen.samples_display",
    "steering.screen.accounts.Accounts": "screen.accounts_display",
    "steering.screen.columns.Directions": "screen.directions_display",
    "steering.monitor.monitor.Monitor": "monitor.monitor_display",
    "steering.monitor.watching.Watch": "monitor.watch_display",
    "steering.monitor.watching.AlarmRaised": "monitor.alarm_display",
    "steering.monitor.streaming.Step": "monitor.step_display",
    "steering.monitor.watching.WatchedReply": "monitor.reply_display",
    "steering.monitor.transcripts.TranscriptReading": "monitor.transcript_display",
    "axis.drift.conversation.Conversation": "drift.conversation_display",
    "axis.drift.result.Trace": "drift.trace_display",
    "axis.drift.result.DriftStudy": "drift.study_display",
    "axis.drift.reading.Readings": "drift.readings_display",
    "axis.drift.attribution.Moved": "drift.moved_display",
    "axis.drift.attribution.ReplyCodes": "drift.codes_display",
    "axis.drift.alarm.DriftAlarm": "drift.alarm_display",
    "axis.roles.Role": "design.role_display",
    "axis.scripts.Script": "design.script_display",
    "axis.design.answers.PlaceDesign": "design.design_display",
    "axis.design.answers.Answers": "design.answers_display",
    "axis.design.result.Placement": "design.placement_display",
    "axis.capping.arms.Limits": "capping.limits_display",
    "axis.capping.calibration.Calibration": "capping.calibration_display",
    "axis.capping.caps.Capping": "capping.capping_display",
    "axis.capping.experiment.Materials": "capping.materials_display",
    "axis.capping.features.FeatureLimits": "capping.features_display",
    "axis.capping.sweep.CappingSweep": "capping.sweep_display",
    "axis.jailbreak.attempts.Arm": "capping.arm_display",
    "axis.jailbreak.harness.Outcomes": "capping.outcomes_display",
    "axis.jailbreak.rates.JailbreakTable": "capping.jailbreak_display",
    "axis.self_description.study.SelfDescription": "capping.self_display",
    "steering.prevent.table.PreventionTable": "prevent.table_display",
    "steering.prevent.lessons.Lesson": "prevent.lesson_display",
    "models.adapters.Adapter": "prevent.adapter_display",
    "models.reply_batches.ChatExample": "prevent.example_display",
    "steering.edits.Edit": "steer.edit_display",
    "steering.composition.Composition": "steer.composition_display",
    "steering.directions.NamedDirection": "steer.direction_display",
    "steering.side_by_side.SideBySide": "steer.side_by_side_display",
    "steering.side_by_side.SteeredReply": "steer.reply_display",
    "steering.replies.ReplyQuality": "steer.quality_display",
    "steering.export.ExportedVector": "steer.exported_display",
    "axis.space.design.RoleDesign": "space.design_display",
    "axis.space.mapping.RoleRun": "space.run_display",
    "axis.space.role_vectors.RoleVectors": "space.vectors_display",
    "axis.space.space.PersonaSpace": "space.space_display",
    "axis.space.comparison.SpaceComparison": "space.comparison_display",
    "reports.content.Report": "parts.report_display",
    "reports.several.TraitReports": "parts.reports_display",
}


def _later(place: str) -> Callable[[Any], Any]:
    """The function at `place`; its module is imported when something is shown."""

    def show(value: Any) -> Any:
        from importlib import import_module

        module, name = place.split(".")
        return getattr(import_module(f"{__name__}.{module}"), name)(value)

    return show


for _name, _place in DISPLAYS.items():
    register(f"workbench.{_name}", _later(_place))
