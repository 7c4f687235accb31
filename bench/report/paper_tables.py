"""The RLR paper's tables and figures: which published number belongs to which cells, and on which scale.

RLR and its ablations are one method with different settings, so they are told apart by these and not by the
preset that was typed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Measure = Literal["score", "memory", "minutes_per_step", "minutes_to_target", "steps_to_target"]
RLR_NAMES = ("rlr", "rlr-fo", "rlr-no-ho", "rlr-no-zo", *(f"rlr-h{h}" for h in range(5)))
H, COMPLETION, SOLVER = "training.method.config.h", "training.method.config.completion", "model.config.solver"
START = "training.method.config.start_range"
TARGET = 5.4  # AES, of Table 7

# Appendix C, whose values every cell is held against; what differs is said.
SAMPLING = {"model.config.steps": 50, "model.config.guidance": 7.5}
OPTIMIZER = {"training.train.optimizer": "adam", "training.train.lr": 5e-4}
OF_RLR = {
    "training.method.config.eta": 0.1,
    "training.method.config.scale": 1e-3,
    **{f"training.method.config.weights.{term}": 1.0 for term in ("fo", "ho", "zo")},
}


class Scale(NamedTuple):
    """How a reward's published numbers relate to our scores.

    needs: settings of our reward under which a difference means something; None if it never does.
    """

    remark: str
    needs: Mapping[str, Any] | None


SCALES = {
    "aes": Scale("aes: raw in both, 1 … 10.", {}),
    "hpsv2": Scale(
        "hpsv2: cosine × 100 in both, by the size of the numbers. The paper does not say which version of "
        "the weights it used; ours are v2.1 unless set otherwise, and its base model matches neither.",
        {"scale": "x100"},
    ),
    "pickscore": Scale(
        "pickscore: exp(logit_scale) × cosine in both, by the size of the numbers; the paper does not say.",
        {"scale": "logit"},
    ),
    "imagereward": Scale(
        "imagereward: no difference is shown. The paper does not define its scale (32.74 for the base model; "
        "raw scores have mean 0 and standard deviation 1), and × 100 would be a guess.",
        None,
    ),
}


@dataclass(frozen=True, eq=False)
class PaperLine:
    """A line of a table, and the cells that it is compared with.

    where: what its line in the file begins with. methods: names of cells' methods; none for the base model.
    settings: of their config.yaml. typed: what `--methods` takes for it. base: where the base model's line
    is, if not in Table 2. appendix: settings that the paper gives for it, over Appendix C's.
    """

    label: str
    where: tuple[str, ...]
    methods: tuple[str, ...] = ()
    typed: str = ""
    settings: Mapping[str, Any] = field(default_factory=lambda: {SOLVER: "ddim"})
    dcot: bool = False
    model: str = "sd14"
    base: tuple[str, ...] = ()
    appendix: Mapping[str, Any] = field(default_factory=dict)

    @property
    def as_published(self) -> Mapping[str, Any]:
        """Settings of a cell's config.yaml that the paper states, and their values."""
        training = OPTIMIZER if self.methods else {}
        return {**SAMPLING, **training, **(OF_RLR if self.methods == RLR_NAMES else {}), **self.appendix}


@dataclass(frozen=True)
class Quantity:
    """A column of a table: what is measured, on cells that were trained on `reward` with `prompts`."""

    column: str
    reward: str
    prompts: str
    measure: Measure = "score"
    title: str = ""

    @property
    def header(self) -> str:
        """What the column is called."""
        return self.title or self.reward


@dataclass(frozen=True, eq=False)
class PaperTable:
    """A table of the paper. experiment: in configs/experiments. file: in results/paper."""

    number: str
    title: str
    experiment: str
    file: str
    lines: tuple[PaperLine, ...]
    quantities: tuple[Quantity, ...]
    remarks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`Table 2`."""
        return f"Table {self.number}"


class PaperFigure(NamedTuple):
    """A figure of the paper, of which no numbers are published. claim: what the text reads off it."""

    title: str
    experiment: str
    claim: str
    methods: tuple[str, ...]


def _rlr(label: str, where: tuple[str, ...], h: int, completion: str = "zo", **more: Any) -> PaperLine:
    settings = {SOLVER: "ddim", H: h, COMPLETION: completion, **more.pop("settings", {})}
    return PaperLine(label, where, RLR_NAMES, more.pop("typed", "rlr"), settings, **more)


def _method(name: str) -> PaperLine:
    return PaperLine(name, (name,), (name,), name)


def _scores(rewards: str, prompts: str, prefix: str = "") -> tuple[Quantity, ...]:
    return tuple(Quantity(f"{prefix}{reward}", reward, prompts) for reward in rewards.split())


def _text_to_image(model: str) -> tuple[PaperLine, ...]:
    others = ("ddpo", "alignprop")
    return (
        PaperLine(f"{model}, base", (model, "base"), model=model),
        *(PaperLine(f"{model}, {name}", (model, name), (name,), name, model=model) for name in others),
        _rlr(f"{model}, rlr", (model, "rlr"), 2, model=model),
    )


ALL = "pickscore hpsv2 aes imagereward"
PLAIN, WITH_DCOT = ("sd14",), ("sd14_dcot",)
UNNAMED = "The paper does not name the prompts; pickapic is ours."
MACHINE = (
    "Memory and time: no difference is shown. The paper's machine had 8 V100; it does not say whether GB are "
    "10^9 or 2^30 bytes (ours: 10^9), nor what its minutes include (ours: training, without evaluation). "
    "Without a GPU ours is the memory of the whole process."
)
RLR, DDPO, ALIGNPROP = _rlr("rlr", ("rlr",), 2), _method("ddpo"), _method("alignprop")

TABLES = (
    PaperTable(
        "2",
        "text to image",
        "table2",
        "table02_text2image",
        (*_text_to_image("sd14"), *_text_to_image("sd21")),
        tuple(q for p in ("pickapic", "hpdv2") for q in _scores(ALL, p, f"{p}_")),
    ),
    PaperTable(
        "4",
        "diffusive chain of thought, on prompts of hands",
        "table4",
        "table04_dcot",
        (
            PaperLine("sd14", PLAIN),
            PaperLine("sd14, DCoT", WITH_DCOT, dcot=True),
            _rlr("rlr", ("rlr_without_dcot",), 2, base=PLAIN),
            _rlr("rlr, DCoT", ("rlr_dcot",), 2, base=WITH_DCOT, dcot=True, settings={START: [9, 19]}),
        ),
        _scores(ALL, "hand"),
        ("Gains are over the base model with the same prompts per step.",),
    ),
    PaperTable(
        "5",
        "RLR without its terms",
        "table5",
        "table05_ablation",
        (
            _rlr("w/o HO & ZO", ("rlr_without_ho_zo",), 0, "none", typed="rlr-fo"),
            _rlr("w/o ZO", ("rlr_without_zo",), 2, "none", typed="rlr-no-zo"),
            _rlr("w/o HO", ("rlr_without_ho",), 0, typed="rlr-no-ho"),
            RLR,
        ),
        _scores(ALL, "hpdv2"),
    ),
    PaperTable(
        "6",
        "memory",
        "table7",
        "table06_memory",
        (DDPO, ALIGNPROP, RLR),
        (
            Quantity("vram_gb", "aes", "pickapic", "memory", "peak GB, theirs VRAM"),
            Quantity("total_gb", "aes", "pickapic", "memory", "peak GB, theirs with RAM"),
        ),
        (MACHINE, UNNAMED, "Ours moves nothing to main memory, so its peak stands beside both of theirs."),
    ),
    PaperTable(
        "7",
        f"time to an aesthetic score of {TARGET}",
        "table7",
        "table07_time",
        (RLR, DDPO, ALIGNPROP),
        (
            Quantity("minutes_per_step", "aes", "pickapic", "minutes_per_step", "minutes/step"),
            Quantity("minutes_to_aes_5.4", "aes", "pickapic", "minutes_to_target", f"minutes to {TARGET}"),
            Quantity("steps_to_aes_5.4", "aes", "pickapic", "steps_to_target", f"steps to {TARGET}"),
        ),
        (MACHINE, UNNAMED, f"Ours: the first evaluation with a held-out aes of {TARGET} or more."),
    ),
    PaperTable(
        "8",
        "solvers",
        "table8",
        "table08_solver",
        (
            _rlr("DDIM", ("ddim",), 2),
            _rlr(
                "DPM-Solver++",
                ("dpmsolver",),
                2,
                settings={SOLVER: "dpmpp"},
                appendix={"model.config.steps": 20},
            ),
        ),
        _scores(ALL, "pickapic"),
        ("Their gain with DPM-Solver++ is over Table 2's base model, which is sampled with DDIM.",),
    ),
    PaperTable(
        "9",
        "length h of the half-order block",
        "table9",
        "table09_chain_length",
        (
            _method("zo"),
            DDPO,
            *(_rlr(f"rlr, h = {h}", ("rlr", str(h)), h, typed=f"rlr-h{h}") for h in range(5)),
        ),
        (
            *_scores("hpsv2 imagereward", "hpdv2"),
            Quantity("memory_gb", "hpsv2", "hpdv2", "memory", "peak GB"),
            Quantity("minutes_per_step", "hpsv2", "hpdv2", "minutes_per_step", "minutes/step"),
        ),
        (
            MACHINE,
            "Memory and time are of the runs on hpsv2; the paper does not say of which reward its are.",
        ),
    ),
)

FIGURES = (
    PaperFigure(
        "Figure 3: truncated backpropagation collapses",
        "figure3",
        "Truncated gradients end in a significant drop of the reward: the fewer the truncated steps, the "
        "more severe.",
        ("truncated_bp", "draft-k"),
    ),
    PaperFigure(
        "Figure 5: reward against steps",
        "figure5",
        "DDPO is very slow. AlignProp keeps up with RLR early and collapses later, while RLR goes on "
        "improving.",
        ("ddpo", "alignprop", "rlr"),
    ),
)

VIDEO = "videocrafter2"  # of Tables 3 and 10, whose numbers are VBench's scores of the videos of cells
EXPERIMENTS = {"table3", *(table.experiment for table in TABLES), *(figure.experiment for figure in FIGURES)}
