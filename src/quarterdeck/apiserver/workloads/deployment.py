"""Deployment → ReplicaSets: the I/O around :mod:`rollout`."""

from __future__ import annotations

from quarterdeck import errors
from quarterdeck.kube.controller import DONE, Controller, ControllerSet, Result
from quarterdeck.kube.owner import is_controlled_by, owner_reference
from quarterdeck.kube.resource import DEPLOYMENT, POD, REPLICA_SET, Key, Object, key_of

from . import rollout, rollout_status
from .control import claim, controller_uid, orphan_namespace, write_status
from .pods import is_finished, matches


class Deployments:
    def __init__(self, controllers: ControllerSet) -> None:
        self._client = controllers.client
        self._clock = controllers.clock
        self._recorder = controllers.recorder("deployment-controller")
        self._deployments = controllers.informer(DEPLOYMENT)
        self._sets = controllers.informer(REPLICA_SET)
        self._sets.add_index("controller", controller_uid)
        self._sets.add_index("orphans", orphan_namespace)
        self._pods = controllers.informer(POD)
        self._pods.add_index("controller", controller_uid)
        maps = [(REPLICA_SET, self._for_orphan), (POD, self._for_recreate)]
        controllers.add(Controller("deployment", DEPLOYMENT, self.reconcile, owns=[REPLICA_SET], maps=maps, workers=4))

    def _for_orphan(self, rs: Object) -> list[Key]:
        labels = rs["metadata"].get("labels")
        if rs["metadata"].get("ownerReferences") or not labels:
            return []
        found = self._deployments.list(rs["metadata"]["namespace"])
        return [key_of(d) for d in found if matches(d["spec"].get("selector"), labels)]

    def _for_recreate(self, pod: Object) -> list[Key]:
        """A Recreate rollout waits for the last old Pod to go."""
        for reference in pod["metadata"].get("ownerReferences") or ():
            rs = self._sets.get(pod["metadata"]["namespace"], reference["name"])
            if rs is None:
                continue
            for owner in rs["metadata"].get("ownerReferences") or ():
                deployment = self._deployments.get(pod["metadata"]["namespace"], owner["name"])
                if deployment is not None and rollout.is_recreate(deployment):
                    return [key_of(deployment)]
        return []

    async def reconcile(self, key: Key) -> Result:
        deployment = self._deployments.get(*key)
        if deployment is None:
            return DONE
        deleting = "deletionTimestamp" in deployment["metadata"]
        sets = await claim(
            self._sets, REPLICA_SET, deployment, self._sets.list(key.namespace), may_adopt=not deleting
        )  # fmt: skip
        new = rollout.find_new(deployment, sets)
        made_new = False
        if not deleting:
            paused = bool(deployment["spec"].get("paused"))
            if new is None and not paused and not (rollout.is_recreate(deployment) and self._busy(sets, new)):
                new = await self._create_set(deployment, sets)
                made_new = new is not None
                if new is None:
                    return Result(0.0)
                sets = [*sets, new]
            deployment, new = await self._annotate(deployment, new, sets)
            await self._scale(deployment, new, sets, paused)
            await self._clean_up(deployment, new, sets)
            sets = [self._sets.get(key.namespace, rs["metadata"]["name"]) or rs for rs in sets]
            new = rollout.find_new(deployment, sets)
        return await self._write_status(deployment, new, sets, made_new)

    def _busy(self, sets: list[Object], new: Object | None) -> bool:
        """Whether old Pods still run (or are stopping)."""
        old = [rs for rs in sets if rs is not new]
        if any(rollout.replicas(rs) > 0 for rs in old):
            return True
        pods = (pod for rs in old for pod in self._pods.by_index("controller", rs["metadata"]["uid"]))
        return any(not is_finished(pod) for pod in pods)

    async def _create_set(self, deployment: Object, sets: list[Object]) -> Object | None:
        """None after a hash collision: the count in the status is raised, so that the next try has another name."""
        wanted = rollout.new_replica_set(deployment, owner_reference(deployment))
        highest = max((rollout.revision(rs) for rs in sets), default=0)
        annotations = rollout.rs_annotations(deployment, wanted, highest + 1) | rollout.size_annotations(deployment)
        wanted["metadata"]["annotations"] = annotations
        if not rollout.is_recreate(deployment):
            total = sum(map(rollout.replicas, sets))
            surge, _ = rollout.fenceposts(deployment)
            want = rollout.desired(deployment)
            wanted["spec"]["replicas"] = max(0, min(want, want + surge - total))
        elif not self._busy(sets, None):
            wanted["spec"]["replicas"] = rollout.desired(deployment)
        try:
            made = await self._client.create(REPLICA_SET, wanted)
        except errors.AlreadyExists:
            return await self._collided(deployment, wanted)
        self._sets.observe(made)
        count = wanted["spec"]["replicas"]
        if count:
            self._scaled(deployment, made, 0, count)
        return made

    async def _collided(self, deployment: Object, wanted: Object) -> Object | None:
        metadata = wanted["metadata"]
        live = await self._client.get(REPLICA_SET, metadata["name"], metadata["namespace"])
        if is_controlled_by(live, deployment) and rollout.template_of(live) == rollout.template_of(deployment):
            self._sets.observe(live)
            return live
        status = dict(deployment.get("status") or {})
        status["collisionCount"] = status.get("collisionCount", 0) + 1
        await write_status(self._deployments, DEPLOYMENT, deployment, status)
        return None

    async def _annotate(
        self, deployment: Object, new: Object | None, sets: list[Object]
    ) -> tuple[Object, Object | None]:
        """Revision numbers: the current template always has the highest, also after an undo."""
        if new is None:
            return deployment, None
        others = max(
            (rollout.revision(rs) for rs in sets if rs["metadata"]["uid"] != new["metadata"]["uid"]), default=0
        )
        annotations = rollout.rs_annotations(deployment, new, max(others + 1, rollout.revision(new)))
        min_ready = deployment["spec"].get("minReadySeconds", 0)
        if annotations != (new["metadata"].get("annotations") or {}) or min_ready != new["spec"].get(
            "minReadySeconds", 0
        ):
            body = {"metadata": {"annotations": annotations}, "spec": {"minReadySeconds": min_ready}}
            new = await self._client.patch(REPLICA_SET, new["metadata"]["name"], body, new["metadata"]["namespace"])
            self._sets.observe(new)
        number = annotations[rollout.REVISION]
        if (deployment["metadata"].get("annotations") or {}).get(rollout.REVISION) != number:
            metadata = deployment["metadata"]
            body = {"metadata": {"annotations": {rollout.REVISION: number}}}
            deployment = await self._client.patch(DEPLOYMENT, metadata["name"], body, metadata["namespace"])
            self._deployments.observe(deployment)
        return deployment, new

    async def _scale(self, deployment: Object, new: Object | None, sets: list[Object], paused: bool) -> None:
        old = [rs for rs in sets if new is None or rs["metadata"]["uid"] != new["metadata"]["uid"]]
        current = [*old, new] if new is not None else old
        if paused or rollout.is_scaling_event(deployment, current):
            scaling = rollout.resize(deployment, new, old)
        elif rollout.is_recreate(deployment):
            scaling = rollout.recreate(deployment, new, old, self._busy(current, new))
        elif new is not None:
            scaling = rollout.roll(deployment, new, old)
        else:
            return
        sizes = rollout.size_annotations(deployment)
        for rs in current:
            before, after = rollout.replicas(rs), scaling.of(rs)
            annotations = rs["metadata"].get("annotations") or {}
            outdated = after > 0 and any(annotations.get(key) != value for key, value in sizes.items())
            if before == after and not outdated:
                continue
            body = {"metadata": {"annotations": sizes}, "spec": {"replicas": after}}
            metadata = rs["metadata"]
            written = await self._client.patch(REPLICA_SET, metadata["name"], body, metadata["namespace"])
            self._sets.observe(written)
            if before != after:
                self._scaled(deployment, rs, before, after)

    def _scaled(self, deployment: Object, rs: Object, before: int, after: int) -> None:
        way = "up" if after > before else "down"
        text = f"Scaled {way} replica set {rs['metadata']['name']} from {before} to {after}"
        self._recorder.event(deployment, "Normal", "ScalingReplicaSet", text)

    async def _clean_up(self, deployment: Object, new: Object | None, sets: list[Object]) -> None:
        old = [rs for rs in sets if new is None or rs["metadata"]["uid"] != new["metadata"]["uid"]]
        status = deployment.get("status") or {}
        complete = new is not None and status.get("updatedReplicas", 0) == rollout.desired(deployment)
        if not complete:
            return
        for rs in rollout.surplus_history(deployment, old):
            metadata = rs["metadata"]
            try:
                await self._client.delete(REPLICA_SET, metadata["name"], metadata["namespace"], uid=metadata["uid"])
            except errors.NotFound:
                continue
            self._sets.observe_deletion(rs)

    async def _write_status(self, deployment: Object, new: Object | None, sets: list[Object], made_new: bool) -> Result:
        now = self._clock.time()
        status = rollout_status.counts(deployment, new, sets)
        conditions = rollout_status.conditions_of(deployment, new, sets, status, now, made_new=made_new)
        status["conditions"] = conditions
        await write_status(self._deployments, DEPLOYMENT, deployment, status)
        left = rollout_status.seconds_to_deadline(deployment, conditions, now)
        return Result(max(left, 0.0) + 1 if left is not None else None)
