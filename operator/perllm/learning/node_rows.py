"""The numbers of nodes and of their GPU types, by which laws are indexed."""


class NodeRows:
    """Gives each node a row, the same for the life of the process, and each GPU type the number of a group.

    Attributes:
        names: of the nodes, by row.
        groups: numbers of their GPU types, by row.
        registrations: how often a row was added or its GPU type changed.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.groups: list[int] = []
        self.registrations = 0
        self._rows: dict[str, int] = {}
        self._gpu_types: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, node: str) -> bool:
        return node in self._rows

    def __getitem__(self, node: str) -> int:
        return self._rows[node]

    def find(self, node: str) -> int | None:
        """Return the row of a node; None if it has none."""
        return self._rows.get(node)

    def gpu_type(self, row: int) -> str:
        """Return the GPU type of a node."""
        return list(self._gpu_types)[self.groups[row]]

    def register(self, node: str, gpu_type: str) -> int:
        """Return the row of a node of this GPU type."""
        group = self._gpu_types.setdefault(gpu_type, len(self._gpu_types))
        row = self._rows.setdefault(node, len(self._rows))
        if row == len(self.names):
            self.names.append(node)
            self.groups.append(group)
        elif self.groups[row] != group:
            self.groups[row] = group
        else:
            return row
        self.registrations += 1
        return row
