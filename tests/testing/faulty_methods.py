"""Methods with one planted fault each; test_suites.py demands that MethodSuite finds it."""

import random
from types import SimpleNamespace

from privkt_mechanisms.randomised_response import RandomisedResponse

from privkt.contracts import MethodConfig, Outcome, Plan, Rows, Texts, TransferMethod, client_step, server_step
from privkt.plugins import MethodSpec, PluginManager, hookimpl
from privkt.testing import MethodSuite

LABELS = ("no", "yes")


class Echo(TransferMethod):
    """Tells noisy labels; the server sends back how many came."""

    name = "echo"

    def plan(self, facts, budget):
        return Plan(crosses=("noisy labels",))

    @client_step
    def tell(self, site):
        """Tell noisy labels."""
        if "told" not in site.state:
            site.state.save_release("told", self.draw(site))
        return self.finish(site, site.state.load_release("told"))

    def draw(self, site):
        mechanism = RandomisedResponse(LABELS, site.budget.epsilon)
        return mechanism.release_column(site.data.load().label, data_set_id=site.data_set_id)

    def finish(self, site, release):
        return release.map(lambda labels: Texts(labels))

    @server_step
    def count(self, site, received):
        """Count them."""
        return {client: Texts((str(len(texts)),)) for client, texts in received.items()}

    @client_step
    def keep(self, site, count):
        """Keep the count."""
        return Outcome(notes={"count": count.text[0]})


class PeeksBehindTheRelease(Echo):
    def finish(self, site, release):
        tail = (str(sum(map(len, site.data.load().text))),)
        return release.map(lambda labels: Texts(labels + tail))


class FiltersInsideMap(Echo):
    def finish(self, site, release):
        return release.map(lambda labels: Texts(tuple(x for x in labels if x in site.data.load().text[0])))


class ForgetsToStore(Echo):
    @client_step
    def tell(self, site):
        """Tell noisy labels."""
        return self.finish(site, self.draw(site))


class DrawsAgain(Echo):
    @client_step
    def tell(self, site):
        """Tell noisy labels."""
        release = self.draw(site)
        site.state.save_release("told", release)
        return self.finish(site, release)


class UnseededOrder(Echo):
    def finish(self, site, release):
        return release.map(lambda labels: Texts(tuple(random.SystemRandom().sample(labels, len(labels)))))


class SendsAnOutcome(Echo):
    @client_step
    def tell(self, site):
        """Tell everything."""
        return Outcome(notes={"labels": list(site.data.load().label)})


class SendsPlainTexts(Echo):
    @client_step
    def tell(self, site):
        """Tell everything."""
        return Texts(site.data.load().text)


class ReleasesRawText(Echo):
    def finish(self, site, release):
        texts = site.data.load().text
        return release.map(lambda labels: Texts(texts))


captured = []


class ServerReadsPrivateData(Echo):
    def draw(self, site):
        captured.append(site.data)
        return super().draw(site)

    @server_step
    def count(self, site, received):
        """Count them."""
        return {client: Texts((str(len(captured[-1].load())),)) for client in received}


class AnswersAStranger(Echo):
    @server_step
    def count(self, site, received):
        """Count them."""
        return {**super().count(site, received), "nobody": Texts(())}


class Lax(MethodConfig, extra="ignore"):
    """Takes any key."""


class TakesAnyKey(Echo):
    Config = Lax


class SilentPlan(Echo):
    def plan(self, facts, budget):
        return Plan()


class Untitled(Echo):
    @server_step
    def count(self, site, received):
        return {}

    @client_step
    def keep(self, site, count):
        """Keep nothing."""
        return Outcome()


class EchoSuite(MethodSuite):
    name = "local:echo"
    labels = LABELS
    method_class = Echo

    def manager(self):
        manager = PluginManager((), {})
        spec = MethodSpec("echo", f"{__name__}:{self.method_class.__name__}", "Echoes.")
        manager.register(SimpleNamespace(privkt_methods=hookimpl(lambda: [spec])))
        return manager

    def config(self):
        return {}

    def rows(self, variant):
        texts = tuple(f"{self.canary} no yes {'x' * variant * i}" for i in range(30))
        return Rows(texts, tuple(LABELS[(i // (variant + 1)) % 2] for i in range(30)))


POST = "test_post_processing_does_not_look_at_private_data_again"
RUNS = "test_the_protocol_runs_and_only_releases_cross"
FOUND = {
    Echo: set(),
    PeeksBehindTheRelease: {POST},
    FiltersInsideMap: {POST, RUNS},
    ForgetsToStore: {POST},
    DrawsAgain: {POST},
    UnseededOrder: {POST},
    SendsAnOutcome: {POST, RUNS},
    SendsPlainTexts: {POST, RUNS},
    ReleasesRawText: {POST, RUNS},
    ServerReadsPrivateData: {POST, RUNS},
    AnswersAStranger: {POST, RUNS},
    TakesAnyKey: {"test_the_config_documents_itself", "test_unknown_keys_are_refused"},
    SilentPlan: {"test_the_plan_reads_no_data"},
    Untitled: {"test_steps_alternate_sensibly"},
}
for _class in FOUND:
    globals()[f"Test{_class.__name__}"] = type(f"Test{_class.__name__}", (EchoSuite,), {"method_class": _class})
FOUND = {f"Test{_class.__name__}": tests for _class, tests in FOUND.items()}
