"""The comparison of layouts itself: what it must refuse and what it must let pass."""
import unittest

from layout import differences, holes

OLD = ["const PDR_A 1", "struct pdr_x 16 8", "field pdr_x struct_size 0 4 uint32_t", "field pdr_x a 4 4 uint32_t",
       "field pdr_x b 8 8 uint64_t", "struct pdr_slice 8 8", "field pdr_slice at 0 8 uint64_t", "function pdr_f int pdr_f(void)"]


def changed(old, new):
    return [new if l == old else l for l in OLD]


class Differences(unittest.TestCase):
    def refused(self, now):
        self.assertTrue(differences(OLD, now)[0], now)

    def test_same(self):
        self.assertEqual(differences(OLD, OLD), ([], [], set()))
        self.assertEqual(list(holes(OLD)), [])

    def test_changes_are_refused(self):
        for old in OLD:
            self.refused([l for l in OLD if l != old])
        self.refused(changed(OLD[0], "const PDR_A 2"))
        self.refused(changed(OLD[3], "field pdr_x a 4 4 int32_t"))
        self.refused(changed(OLD[4], "field pdr_x b 16 8 uint64_t"))
        self.refused(changed(OLD[1], "struct pdr_x 8 8"))
        self.refused(changed(OLD[7], "function pdr_f void pdr_f(void)"))

    def test_only_the_end_may_grow(self):
        grown = changed(OLD[1], "struct pdr_x 24 8")
        end = "field pdr_x c 16 8 uint64_t"
        self.assertEqual(differences(OLD, grown + [end]), ([], [end], {"pdr_x"}))
        self.refused(OLD + ["field pdr_x c 12 4 uint32_t"])

    def test_what_lies_in_arrays_may_not_grow(self):
        self.refused(changed(OLD[5], "struct pdr_slice 16 8") + ["field pdr_slice more 8 8 uint64_t"])

    def test_holes_are_found(self):
        self.assertEqual(len(list(holes(changed(OLD[4], "field pdr_x b 12 4 uint32_t")))), 1)
        self.assertEqual(len(list(holes(["struct s 8 4", "field s a 0 4 uint32_t"]))), 1)


if __name__ == "__main__":
    unittest.main()
