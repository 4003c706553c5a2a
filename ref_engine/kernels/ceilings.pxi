def dots_alone(Table table not None, ptrdiff_t n):
    """n times eight integer dots on registers: 512 n multiply-adds, and a number that depends on them."""
    cdef int32_t total
    with nogil:
        total = table.c.dots_alone(n)
    return total


def read_alone(Table table not None, const uint8_t[::1] data not None):
    """Read all bytes once, but for a rest of less than 256; a number that depends on them."""
    cdef int32_t total
    if data.shape[0] == 0:
        return 0
    with nogil:
        total = table.c.read_alone(&data[0], data.shape[0])
    return total
