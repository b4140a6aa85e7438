"""The keys of params.yaml that stand in groups, with their types."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CleanConfig:
    """What `prepare` removes from the text; the schema describes each switch."""

    encoding: str = "utf-8"
    control_characters: str = "keep"
    licences: str = "keep"
    repeated_lines: str = "keep"
    near_copies: str = "keep"


@dataclass(frozen=True)
class EvaluateConfig:
    """Knobs of the evaluate stage; the schema describes each."""

    batch_size: int
    stride: int | None
    max_tokens: int | None
    memorisation_samples: int
    memorisation_tokens: int
    memorisation_temperature: float
    memorisation_seed: int


@dataclass(frozen=True)
class SampleConfig:
    """Knobs of the sample stage; the schema describes each."""

    prompt: str | None
    prompt_file: str
    num_samples: int
    max_new_tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float
    stop: list[str]
    window: str
    seed: int
