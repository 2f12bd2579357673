"""How a saga is written down: the graph that comes out, and what is refused with the names of the steps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypedDict, TypeVar

import pytest
from pydantic import BaseModel

from saga_orchestrator.definition.builder import SagaBuilder
from saga_orchestrator.definition.context import InputContext
from saga_orchestrator.definition.graph import StepKind
from saga_orchestrator.definition.retry import ExponentialRetry, FixedRetry, NoRetry, RetryPolicy
from saga_orchestrator.definition.saga import SagaDefinition
from saga_orchestrator.definition.step import BaseStep, StepRef
from saga_orchestrator.errors import SagaDefinitionError, TypeValidationError

COMPENSATABLE, READ_ONLY, PIVOT, RETRIABLE = StepKind


class Item(BaseModel):
    name: str = ""


class NamedItem(Item):
    pass


class Quote(BaseModel):
    price: int = 0


class BestQuote(Quote):
    pass


class Buy(BaseStep[Item, Quote]):
    async def execute(self, inp: Item) -> Quote:
        return Quote()


class Return(Buy):
    async def compensate(self, inp: Item, out: Quote | None) -> None:
        raise NotImplementedError


class Ask(Return):
    async def probe(self, inp: Item) -> Quote | None:
        raise NotImplementedError


def item(*_: Any) -> Item:
    return Item()


class Draft:
    """A builder whose steps are named and undoable unless a test says otherwise."""

    def __init__(self, **settings: Any) -> None:
        self.builder = SagaBuilder(**settings)
        self.parallel = self.builder.parallel

    def add(
        self, step_id: str | None = None, step: Any = None, input_map: Any = item, **options: Any
    ) -> StepRef[Quote]:
        step = Return() if step is None else step
        found: StepRef[Quote] = self.builder.add_step(step=step, input_map=input_map, step_id=step_id, **options)
        return found

    def edges(self) -> dict[str, str]:
        """What each step comes after, its letters joined."""
        return {step_id: "".join(node.after) for step_id, node in self.builder.build().graph.nodes.items()}


def of_kinds(*steps: tuple[str, StepKind], beside: str | None = None) -> SagaDefinition:
    """A saga of steps of these kinds, one after the other, but the step `beside` starts with the saga."""
    draft = Draft()
    for step_id, kind in steps:
        step = Return() if kind is COMPENSATABLE else Buy()
        draft.add(step_id, step, kind=kind, after=[] if step_id == beside else None)
    return draft.builder.build()


class TestOrder:
    def test_steps_come_one_after_the_other(self) -> None:
        """The order of adding is the order of running, unless something else is said."""
        draft = Draft()
        for step_id in "abc":
            draft.add(step_id)

        assert draft.edges() == {"a": "", "b": "a", "c": "b"}

    def test_after_replaces_the_default_edge(self) -> None:
        """A step may follow other steps than the previous one, several of them, or none."""
        draft = Draft()
        a = draft.add("a")
        b = draft.add("b", after=a)
        c = draft.add("c", after=a)
        draft.add("d")
        draft.add("e", after=[b, c])
        draft.add("f", after=[])

        assert draft.edges() == {"a": "", "b": "a", "c": "a", "d": "c", "e": "bc", "f": ""}

    def test_depends_on_adds_edges(self) -> None:
        """A step that needs an earlier output still follows the previous step, unless `after` replaces that."""
        draft = Draft()
        a, b = draft.add("a"), draft.add("b")
        draft.add("c", depends_on=a)
        draft.add("d", depends_on=[b, a], after=a)
        draft.add("e", depends_on=[a, a], after=[])

        assert draft.edges() == {"a": "", "b": "a", "c": "ba", "d": "ab", "e": "a"}

    def test_steps_of_a_parallel_block_run_side_by_side_and_are_joined(self) -> None:
        """Each follows what stood before the block, and the next step follows all of them."""
        draft = Draft()
        draft.add("a")
        with draft.parallel():
            for step_id in "bcd":
                draft.add(step_id)
        draft.add("e")
        draft.add("f")

        assert draft.edges() == {"a": "", "b": "a", "c": "a", "d": "a", "e": "bcd", "f": "e"}

    def test_a_branch_is_a_sequence(self) -> None:
        """Inside a branch steps follow each other, and the join waits for the last of them."""
        draft = Draft()
        with draft.parallel() as block:
            with block.branch():
                draft.add("a")
                draft.add("b")
            draft.add("c")
            with block.branch():
                draft.add("d")
                draft.add("e")
        draft.add("f")

        assert draft.edges() == {"a": "", "b": "a", "c": "", "d": "", "e": "d", "f": "bce"}

    def test_a_block_without_with_is_refused(self) -> None:
        """Its steps would stand one after another, although their author asked for the opposite."""
        draft = Draft()
        draft.builder.parallel()
        draft.add("one")

        with pytest.raises(SagaDefinitionError, match="was called without `with`"):
            draft.builder.build()

    def test_parallel_blocks_nest(self) -> None:
        """A fork within a branch joins inside it; a fork directly within a fork is the same fork."""
        draft = Draft()
        draft.add("a")
        with draft.parallel() as block:
            with block.branch():
                draft.add("b")
                with draft.parallel():
                    draft.add("c")
                    draft.add("d")
                draft.add("e")
            with draft.parallel():
                draft.add("f")
        draft.add("g")

        assert draft.edges() == {"a": "", "b": "a", "c": "b", "d": "b", "e": "cd", "f": "a", "g": "ef"}

    def test_empty_blocks_change_nothing(self) -> None:
        """A block that a condition left empty does not cut the chain."""
        draft = Draft()
        draft.add("a")
        with draft.parallel():
            pass
        with draft.parallel() as block, block.branch():
            pass
        draft.add("b")

        assert draft.edges() == {"a": "", "b": "a"}

    def test_a_branch_outside_its_block_is_refused(self) -> None:
        """A branch belongs to one fork, and directly to it."""
        draft = Draft()

        def open_branch() -> None:
            with block.branch():
                raise AssertionError

        with draft.parallel() as block, block.branch(), pytest.raises(SagaDefinitionError, match=r"branch\(\) belongs"):
            open_branch()
        with pytest.raises(SagaDefinitionError, match=r"open another parallel\(\) for a fork within a branch"):
            open_branch()

    def test_build_inside_a_block_is_refused(self) -> None:
        """What comes after the block is not known yet."""
        draft = Draft()
        with draft.parallel():
            draft.add("a")
            with pytest.raises(SagaDefinitionError, match=r"inside a `with builder.parallel\(\)` block"):
                draft.builder.build()

        assert draft.edges() == {"a": ""}

    def test_a_builder_can_go_on_after_build(self) -> None:
        """What was built stays as it was."""
        draft = Draft()
        draft.add("a")
        first = draft.builder.build()
        draft.add("b")

        assert [len(first.steps), len(draft.builder.build().steps)] == [1, 2]


class TestStep:
    def test_everything_that_is_said_reaches_the_definition(self) -> None:
        """The options, the step's own facts and the builder's settings, each where it is looked for."""
        draft = Draft(compensate_on_failure=False, version=3, max_recoveries=0)
        retry, undo_retry = FixedRetry(3, timedelta(0)), ExponentialRetry(5, timedelta(seconds=2), jitter=1.0)
        ref = draft.add(
            "ask",
            Ask(),
            timeout=timedelta(seconds=1),
            retry_policy=retry,
            compensation_retry=undo_retry,
            compensation_timeout=timedelta(seconds=2),
            on_undo_failure="stop",
        )
        definition = draft.builder.build()
        step, node = definition.step("ask"), definition.graph.nodes["ask"]

        assert (definition.version, definition.graph.max_recoveries) == (3, 0)
        assert not definition.compensate_on_failure
        assert (ref.step_id, ref.output_model) == ("ask", Quote)
        assert (step.node, step.timeout, step.retry_policy) == (node, timedelta(seconds=1), retry)
        assert (node.compensation_retry, node.compensation_timeout) == (undo_retry, timedelta(seconds=2))
        assert (node.undoable, node.undo_without_output, node.probes) == (True, True, True)
        assert (node.on_undo_failure, node.kind, node.nothing_to_undo) == ("stop", COMPENSATABLE, False)

    def test_a_step_alone_has_modest_defaults(self) -> None:
        """One attempt, no limits, and the rest is undone whatever happens."""
        draft = Draft()
        draft.add(step=Buy())
        node = draft.builder.build().graph.nodes["step_0"]

        assert (node.retry, node.compensation_retry, node.on_undo_failure) == (NoRetry(), NoRetry(), "continue")
        assert (node.timeout, node.compensation_timeout) == (None, None)
        assert (node.undoable, node.undo_without_output, node.probes, node.nothing_to_undo) == (False,) * 4

    def test_ids_are_given_by_position(self) -> None:
        """A step without an id is named after the number of steps before it."""
        draft = Draft()
        draft.add()
        draft.add("charge")
        draft.add()

        assert list(draft.edges()) == ["step_0", "charge", "step_2"]

    def test_depends_on_is_kept_with_its_outputs(self) -> None:
        """The outputs are handed to input_map in the order of the refs."""
        draft = Draft()
        a, b = draft.add("a"), draft.add("b")
        draft.add("c", depends_on=[b, a])

        assert draft.builder.build().step("c").depends_on == (b, a)

    def test_a_kind_may_be_its_name(self) -> None:
        """The kind of the class is overridden by `kind=`, which may be written as text."""
        draft = Draft()
        draft.add("a", Buy(), kind="READ_ONLY")

        assert draft.builder.build().graph.nodes["a"].kind is READ_ONLY

    def test_the_kind_of_the_class_counts_where_nothing_is_said(self) -> None:
        """A pivot declares itself."""

        class Pay(Buy):
            kind = PIVOT

        draft = Draft()
        draft.add("pay", Pay())

        assert draft.builder.build().graph.final == ("pay",)

    def test_one_step_may_stand_at_several_places(self) -> None:
        """Steps hold no state of a saga."""
        draft, step = Draft(), Return()
        draft.add("a", step)
        draft.add("b", step)

        assert {each.step for each in draft.builder.build().steps} == {step}


class TestRefusals:
    def test_a_saga_without_steps_is_refused(self) -> None:
        """There is nothing to do."""
        with pytest.raises(SagaDefinitionError, match="Saga must contain at least one step"):
            SagaBuilder().build()

    @pytest.mark.parametrize(
        ("setting", "complaint"),
        [
            ({"compensate_on_failure": "no"}, "compensate_on_failure is 'no'"),
            ({"version": 0}, "version is 0; it must be an int of at least 1"),
            ({"version": True}, "version is True"),
            ({"max_recoveries": -1}, "max_recoveries is -1; it must be an int of at least 0"),
            ({"max_recoveries": 2.5}, "max_recoveries is 2.5"),
        ],
    )
    def test_settings_that_mean_nothing_are_refused(self, setting: dict[str, Any], complaint: str) -> None:
        """A setting is checked where it is written."""
        with pytest.raises(SagaDefinitionError, match=complaint):
            SagaBuilder(**setting)

    @pytest.mark.parametrize("step_id", ["", 7, "x" * 201, "a/b", "a\x00b", "a\ud800b"])
    def test_an_unusable_id_is_refused(self, step_id: Any) -> None:
        """An id must fit its column, the keys made of it, and every database."""
        with pytest.raises(SagaDefinitionError, match="step_id is "):
            Draft().add(step_id)

    def test_the_longest_id_is_accepted(self) -> None:
        """The limit itself is allowed."""
        assert Draft().add("x" * 200).step_id == "x" * 200

    def test_an_id_that_is_taken_is_refused(self) -> None:
        """Also where the other one was given by position."""
        draft = Draft()
        draft.add("step_1")

        with pytest.raises(SagaDefinitionError, match=r"Duplicate step id: step_1. Give one of the two"):
            draft.add()

    @pytest.mark.parametrize("step", [Return, object(), "charge"])
    def test_what_is_no_step_is_refused(self, step: Any) -> None:
        """Mostly a class where an instance is wanted."""
        with pytest.raises(SagaDefinitionError, match=r"Step 'charge': step is .*; give it an instance of a BaseStep"):
            Draft().add("charge", step)

    def test_a_step_that_is_not_concrete_is_refused(self) -> None:
        """A base for other steps cannot run."""

        class Unfinished(BaseStep[Item, Quote]):
            pass

        with pytest.raises(TypeValidationError, match="'Unfinished' cannot be used yet"):
            Draft().add("charge", Unfinished())

    @pytest.mark.parametrize("keyword", ["depends_on", "after"])
    def test_a_ref_of_another_builder_is_refused(self, keyword: str) -> None:
        """Both steps are named: the one that refers, and the one referred to."""
        foreign = Draft().add("reserve")
        draft = Draft()
        draft.add("reserve")

        for ref in (foreign, [foreign], StepRef("reserve", Quote)):
            with pytest.raises(SagaDefinitionError, match=f"'charge': {keyword} refers to step 'reserve' of another"):
                draft.add("charge", **{keyword: ref})

    @pytest.mark.parametrize("keyword", ["depends_on", "after"])
    @pytest.mark.parametrize("ref", ["reserve", 5, ["reserve"]])
    def test_what_is_no_ref_is_refused(self, keyword: str, ref: Any) -> None:
        """An id is not a ref: it says neither which builder nor which type."""
        with pytest.raises(SagaDefinitionError, match=f"'charge': {keyword} holds .*; give it what add_step returned"):
            Draft().add("charge", **{keyword: ref})

    @pytest.mark.parametrize("keyword", ["timeout", "compensation_timeout"])
    @pytest.mark.parametrize("value", [timedelta(0), timedelta(seconds=-1), 5])
    def test_a_limit_that_no_attempt_could_keep_is_refused(self, keyword: str, value: Any) -> None:
        """A limit is a positive duration."""
        with pytest.raises(SagaDefinitionError, match=f"'charge': {keyword} is .*; give it a positive timedelta"):
            Draft().add("charge", **{keyword: value})

    @pytest.mark.parametrize("keyword", ["retry_policy", "compensation_retry"])
    def test_what_is_no_policy_is_refused(self, keyword: str) -> None:
        """Mostly a class or a number where a policy is wanted."""
        for value in (NoRetry, 3):
            with pytest.raises(SagaDefinitionError, match=f"'charge': {keyword} is .*; give it a policy"):
                Draft().add("charge", **{keyword: value})

    @pytest.mark.parametrize("delay", [timedelta(seconds=-1), 5])
    def test_a_policy_that_waits_for_no_time_there_is_is_refused(self, delay: Any) -> None:
        """Such a pause would only fail when the first attempt has failed."""
        policy: RetryPolicy = FixedRetry(3, delay)
        with pytest.raises(SagaDefinitionError, match=r"'charge': retry_policy waits for .*; give it a timedelta"):
            Draft().add("charge", retry_policy=policy)

    def test_a_jitter_that_takes_off_more_than_all_is_refused(self) -> None:
        """Jitter is a fraction."""
        with pytest.raises(SagaDefinitionError, match=r"'charge': retry_policy has the jitter 1.5"):
            Draft().add("charge", retry_policy=FixedRetry(3, timedelta(0), jitter=1.5))

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"kind": "IRREVERSIBLE"}, "'charge': kind is 'IRREVERSIBLE'; it must be one of COMPENSATABLE, READ_ONLY"),
            ({"on_undo_failure": "pray"}, "'charge': on_undo_failure is 'pray'; it must be 'continue' or 'stop'"),
            ({"compensation": item}, "'charge': compensation takes only None"),
        ],
    )
    def test_an_option_that_means_nothing_is_refused(self, options: dict[str, Any], complaint: str) -> None:
        """The step and what may be written instead are named."""
        with pytest.raises(SagaDefinitionError, match=complaint):
            Draft().add("charge", **options)

    def test_an_unknown_option_is_refused_as_python_does(self) -> None:
        """A typo in a keyword is a TypeError."""
        with pytest.raises(TypeError, match="unexpected keyword argument 'timeot'"):
            Draft().add("charge", timeot=1)

    def test_a_refused_step_leaves_no_trace(self) -> None:
        """The builder goes on as if the step had never been tried."""
        draft = Draft()
        draft.add("a")
        with pytest.raises(SagaDefinitionError):
            draft.add("b", timeout=timedelta(0))
        draft.add("b")

        assert draft.edges() == {"a": "", "b": "a"}


class Other(BaseModel):
    pass


class ItemFields(TypedDict):
    name: str


AnyT = TypeVar("AnyT")


class Callback:
    """An input_map that is an object."""

    def __call__(self, quote: Quote) -> Item:
        raise NotImplementedError


class TestInputMap:
    """P5: what can be read of an input_map is checked when the saga is built."""

    def add(self, input_map: Any, given: int = 1) -> None:
        """Add a step whose input_map is given this many quotes, or an InputContext if none."""
        draft = Draft()
        refs = [draft.add(f"quote_{number}") for number in range(given)]
        draft.add("buy", input_map=input_map, depends_on=refs)

    @pytest.mark.parametrize("input_map", [None, "x", Item()])
    def test_it_must_be_callable(self, input_map: Any) -> None:
        """What it is instead is shown."""
        with pytest.raises(SagaDefinitionError, match="input_map of step 'buy' must be a plain function or lambda"):
            self.add(input_map)

    def test_it_must_not_be_async(self) -> None:
        """It is called, not awaited."""

        async def fetch(quote: Quote) -> Item:
            raise NotImplementedError

        with pytest.raises(SagaDefinitionError, match="what must be awaited belongs in a step"):
            self.add(fetch)

    def test_it_takes_one_argument_for_each_ref(self) -> None:
        """Lambdas and functions without annotations pass, with as many parameters as there are refs."""
        self.add(lambda ctx: Item(name=ctx.initial_data), given=0)
        self.add(lambda quote: Item(name=str(quote)))
        self.add(lambda first, second, *, rate=1: Item(name=f"{first}{second}{rate}"), given=2)
        self.add(lambda *quotes: Item(name=str(quotes)), given=3)

    @pytest.mark.parametrize(
        ("input_map", "given"),
        [
            (lambda: None, 0),
            (lambda: None, 1),
            (lambda one, two: Item(), 1),
            (lambda one: Item(), 2),
            (lambda one, *, rate: Item(), 1),
        ],
    )
    def test_another_number_of_arguments_is_refused(self, input_map: Callable[..., Item], given: int) -> None:
        """The message says what it is called with."""
        called_with = ", ".join(["Quote"] * given) or "InputContext"
        with pytest.raises(
            SagaDefinitionError, match=f"'buy' is called with \\({called_with}\\), which it does not take"
        ):
            self.add(input_map, given)

    @pytest.mark.parametrize("annotation", [Quote, BaseModel, Quote | None, Any, AnyT, "Quote", "Absent"])
    def test_a_parameter_that_fits_is_accepted(self, annotation: Any) -> None:
        """The exact model, a base of it, a union with it, Any, and what cannot be resolved yet."""

        def make(quote: Any) -> Any:
            raise NotImplementedError

        def make_of_several(*quotes: Any) -> Any:
            raise NotImplementedError

        make.__annotations__ = {"quote": annotation}
        make_of_several.__annotations__ = {"quotes": annotation}
        self.add(make)
        self.add(make_of_several, given=2)

    @pytest.mark.parametrize(
        "annotation",
        [
            *(Item, NamedItem, dict, dict[str, Any], Mapping[str, object], dict[Any, Any], ItemFields),
            *(Item | dict[str, str], Any, AnyT, "Item", "Absent"),
        ],
    )
    def test_a_return_that_fits_is_accepted(self, annotation: Any) -> None:
        """The input model, a subclass of it, every form of dict with text as keys, and what cannot be resolved yet."""

        def make(quote: Any) -> Any:
            raise NotImplementedError

        make.__annotations__ = {"return": annotation}
        self.add(make)

    def test_local_models_in_string_annotations_are_understood(self) -> None:
        """The models at hand are known by name, so that a wrong local one is found, and a right one is not."""

        class Local(BaseModel):
            pass

        class Make(BaseStep[Local, Quote]):
            async def execute(self, inp: Local) -> Quote:
                raise NotImplementedError

        def right(ctx: InputContext) -> Local:
            raise NotImplementedError

        def wrong(ctx: Local) -> Local:
            raise NotImplementedError

        Draft().add("make", Make(), right)
        with pytest.raises(TypeValidationError, match="takes `ctx: Local`, but is given InputContext"):
            Draft().add("make", Make(), wrong)

    def test_a_parameter_of_another_model_is_refused(self) -> None:
        """The message names the parameter, what it is annotated with, and what it is given."""

        def second(one: Quote, two: Other) -> Item:
            raise NotImplementedError

        def starred(*quotes: Other) -> Item:
            raise NotImplementedError

        def context(ctx: InputContext) -> Item:
            raise NotImplementedError

        def narrower(quote: BestQuote) -> Item:
            raise NotImplementedError

        with pytest.raises(TypeValidationError, match="'buy' takes `two: Other`, but is given Quote"):
            self.add(second, given=2)
        with pytest.raises(TypeValidationError, match="'buy' takes `quotes: Other`, but is given Quote"):
            self.add(starred, given=2)
        with pytest.raises(TypeValidationError, match="'buy' takes `ctx: InputContext`, but is given Quote"):
            self.add(context)
        with pytest.raises(TypeValidationError, match="'buy' takes `quote: BestQuote`, but is given Quote"):
            self.add(narrower)

    @pytest.mark.parametrize("annotation", [Other, None, str, dict[int, str], Item | None, list[Item], "Item | Other"])
    def test_a_return_of_another_type_is_refused(self, annotation: Any) -> None:
        """The message says what the step takes."""

        def make(quote: Any) -> Any:
            raise NotImplementedError

        make.__annotations__ = {"return": annotation}
        with pytest.raises(
            TypeValidationError, match=r"'buy' returns .*, but the step takes Item. Return Item, or a dict"
        ):
            self.add(make)

    def test_a_return_that_is_no_type_at_all_is_refused(self) -> None:
        """A literal is not a model."""

        def make(quote: Any) -> Any:
            raise NotImplementedError

        make.__annotations__ = {"return": "__import__('typing').Literal['x']"}
        with pytest.raises(TypeValidationError, match=r"'buy' returns typing.Literal"):
            self.add(make)

    def test_callables_of_every_sort_are_read(self) -> None:
        """Methods, partials and objects with __call__ are checked like functions."""

        def of_rate(rate: int, quote: Quote) -> Item:
            raise NotImplementedError

        def of_other(rate: int, quote: Other) -> Item:
            raise NotImplementedError

        self.add(Callback())
        self.add(Callback().__call__)
        self.add(functools.partial(of_rate, 2))
        for wrong in (functools.partial(of_other, 2), functools.partial(functools.partial(of_other), 2)):
            with pytest.raises(TypeValidationError, match="takes `quote: Other`"):
                self.add(wrong)
        with pytest.raises(TypeValidationError, match="takes `quote: Quote`, but is given InputContext"):
            self.add(Callback(), given=0)

    def test_a_class_returns_itself(self) -> None:
        """A class that takes the output is as good as a function, if its objects are the input."""

        class FromQuote(Item):
            def __init__(self, quote: Quote) -> None:
                raise NotImplementedError

        class Priced:
            def __init__(self, quote: Quote) -> None:
                raise NotImplementedError

        self.add(FromQuote)
        with pytest.raises(TypeValidationError, match="'buy' returns Priced, but the step takes Item"):
            self.add(Priced)

    def test_what_cannot_be_read_passes(self) -> None:
        """Some builtins have no signature; what they return is checked when they are called."""
        self.add(functools.partial(next, iter([])))
        self.add(dict)


class TestKinds:
    """N4: an order of steps in which a failure could be answered neither by going on nor by going back is refused."""

    def test_the_order_of_saga_theory_is_accepted(self) -> None:
        """Compensatable steps, the pivot, then retriable ones; reading is allowed everywhere."""
        definition = of_kinds(
            ("look", READ_ONLY),
            ("reserve", COMPENSATABLE),
            ("charge", PIVOT),
            ("read", READ_ONLY),
            ("ship", RETRIABLE),
            ("tell", RETRIABLE),
            ("log", READ_ONLY),
        )

        assert definition.graph.final == ("charge", "ship", "tell")
        assert [step_id for step_id, node in definition.graph.nodes.items() if node.nothing_to_undo] == [
            "look",
            "read",
            "log",
        ]

    def test_retriable_steps_need_no_pivot(self) -> None:
        """The first of them is the point of no return then, and they may run side by side."""
        draft = Draft()
        draft.add("reserve")
        with draft.parallel():
            draft.add("tell", Buy(), kind=RETRIABLE)
            draft.add("log", Buy(), kind=RETRIABLE)

        assert draft.builder.build().graph.final == ("tell", "log")

    def test_a_compensatable_step_after_the_pivot_is_refused(self) -> None:
        """Both steps are named."""
        with pytest.raises(
            SagaDefinitionError, match=r"Step 'reserve' is COMPENSATABLE, but can run after 'charge' .PIVOT"
        ):
            of_kinds(("charge", PIVOT), ("reserve", COMPENSATABLE))

    def test_a_compensatable_step_far_after_the_pivot_is_refused(self) -> None:
        """Whatever stands between them."""
        with pytest.raises(SagaDefinitionError, match="Step 'reserve' is COMPENSATABLE, but can run after 'charge'"):
            of_kinds(("charge", PIVOT), ("tell", RETRIABLE), ("look", READ_ONLY), ("reserve", COMPENSATABLE))

    def test_a_compensatable_step_beside_the_pivot_is_refused(self) -> None:
        """What may run after it counts, not what is drawn after it."""
        with pytest.raises(SagaDefinitionError, match="Step 'reserve' is COMPENSATABLE, but can run after 'charge'"):
            of_kinds(("reserve", COMPENSATABLE), ("charge", PIVOT), beside="charge")

    def test_a_compensatable_step_after_a_retriable_one_is_refused(self) -> None:
        """A retriable step is never undone either."""
        with pytest.raises(
            SagaDefinitionError, match=r"'reserve' is COMPENSATABLE, but can run after 'tell' .RETRIABLE"
        ):
            of_kinds(("tell", RETRIABLE), ("reserve", COMPENSATABLE))

    def test_two_pivots_are_refused(self) -> None:
        """All of them are named."""
        with pytest.raises(SagaDefinitionError, match="Steps 'charge', 'ship' are each a PIVOT"):
            of_kinds(("charge", PIVOT), ("ship", PIVOT))

    @pytest.mark.parametrize("beside", [None, "charge"])
    def test_a_retriable_step_before_or_beside_the_pivot_is_refused(self, beside: str | None) -> None:
        """The pivot may still fail, and then the retriable step could not be undone."""
        with pytest.raises(SagaDefinitionError, match="'tell' is RETRIABLE and can run before the PIVOT 'charge'"):
            of_kinds(("tell", RETRIABLE), ("charge", PIVOT), beside=beside)

    def test_a_retriable_step_need_not_follow_the_pivot_directly(self) -> None:
        """Every way to it leads over the pivot."""
        assert of_kinds(("charge", PIVOT), ("look", READ_ONLY), ("tell", RETRIABLE)).graph.final == ("charge", "tell")

    def test_a_missing_compensation_is_refused_when_something_may_fail_later(self) -> None:
        """The step without compensate and what may fail are named, up to three."""
        draft = Draft()
        draft.add("reserve", Buy())
        for step_id in "abcde":
            draft.add(step_id)

        with pytest.raises(
            SagaDefinitionError,
            match=r"Step 'reserve' has no compensate, and 'a', 'b', 'c' and 2 more may fail after it or beside it. "
            "Write compensate, or add it with compensation=None",
        ):
            draft.builder.build()

    def test_a_missing_compensation_is_refused_when_something_beside_it_may_fail(self) -> None:
        """A sibling's failure undoes it too."""
        draft = Draft()
        with draft.parallel():
            draft.add("look", Buy(), kind=READ_ONLY)
            draft.add("reserve", Buy())

        with pytest.raises(SagaDefinitionError, match="Step 'reserve' has no compensate, and 'look' may fail"):
            draft.builder.build()

    def test_a_missing_compensation_is_accepted_where_nothing_can_fail_any_more(self) -> None:
        """A last step, and one that only retriable steps follow, are never undone."""
        draft = Draft()
        draft.add("reserve")
        draft.add("charge", Buy())
        draft.add("tell", Buy(), kind=RETRIABLE)

        assert not draft.builder.build().graph.nodes["charge"].undoable

    def test_a_missing_compensation_may_be_declared(self) -> None:
        """`compensation=None` says that there is nothing to undo."""
        draft = Draft()
        draft.add("log", Buy(), compensation=None)
        draft.add("charge")

        assert draft.builder.build().graph.nodes["log"].nothing_to_undo

    def test_a_declaration_that_contradicts_the_step_is_refused(self) -> None:
        """Either there is something to undo or there is not."""
        with pytest.raises(
            SagaDefinitionError, match="Step 'charge' has compensate, and is added with compensation=None"
        ):
            Draft().add("charge", compensation=None)

    @pytest.mark.parametrize("kind", [PIVOT, RETRIABLE, READ_ONLY])
    def test_a_compensation_that_would_never_be_called_is_refused(self, kind: StepKind) -> None:
        """Its author believes in an undo that would not happen."""
        with pytest.raises(SagaDefinitionError, match=f"'charge' is {kind} and has compensate, which would never be"):
            Draft().add("charge", kind=kind)

    @pytest.mark.parametrize("kind", [PIVOT, RETRIABLE])
    def test_a_final_step_is_not_declared_without_effect(self, kind: StepKind) -> None:
        """Never undone is not the same as nothing to undo."""
        with pytest.raises(SagaDefinitionError, match=f"'charge' is {kind}, so it is never undone; compensation=None"):
            Draft().add("charge", Buy(), kind=kind, compensation=None)

    def test_a_read_only_step_may_say_it_twice(self) -> None:
        """Both words mean the same there."""
        draft = Draft()
        draft.add("look", Buy(), kind=READ_ONLY, compensation=None)

        assert draft.builder.build().graph.nodes["look"].nothing_to_undo
