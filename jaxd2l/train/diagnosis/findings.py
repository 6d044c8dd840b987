"""What a diagnosis is made of: findings, and the sentences they are printed as."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong, where, by which measure, and what to do.

    Attributes:
      cause: its name, such as "dead_units".
      where: "inputs", "targets", "outputs", "parameters", "optimizer", or the path of a layer.
      value: what was measured.
      limit: the threshold that it is beyond.
      measured: the same in words.
      advice: what to do.

    Example:
      >>> print(Finding("dead_units", "dense1", 0.9, 0.5, "90% of the units are dead", "restart"))
      dead_units at dense1: 90% of the units are dead. To do: restart.
    """

    cause: str
    where: str
    value: float
    limit: float
    measured: str
    advice: str

    def __str__(self) -> str:
        return f"{self.cause} at {self.where}: {self.measured}. To do: {self.advice}."


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found, and what it could not judge; `print` gives plain sentences.

    Attributes:
      findings: what is wrong, causes before their consequences.
      unjudged: names of checks that were left out, with the reason.

    Example:
      >>> print(Diagnosis((), {}))
      nothing found
    """

    findings: tuple[Finding, ...]
    unjudged: dict[str, str]

    @property
    def causes(self) -> tuple[str, ...]:
        """The names of the causes found, each once.

        Example:
          >>> Diagnosis((), {}).causes
          ()
        """
        return tuple(dict.fromkeys(finding.cause for finding in self.findings))

    def __str__(self) -> str:
        lines = [str(finding) for finding in self.findings] or ["nothing found"]
        for reason in dict.fromkeys(self.unjudged.values()):
            names = [name for name, why in self.unjudged.items() if why == reason]
            lines.append(f"not judged, as {reason}: {', '.join(names)}")
        return "\n".join(lines)
