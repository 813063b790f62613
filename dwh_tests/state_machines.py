"""Random histories that are the same each time, so that a failure can be looked into."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


def run_histories(
    machine: type[RuleBasedStateMachine], *, examples: int, steps: int, shrinks: bool = True
) -> None:
    """Run so many histories of so many steps; a failing one is made shorter, unless that takes too long."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink) if shrinks else (Phase.generate,),
            print_blob=False,
        ),
    )
