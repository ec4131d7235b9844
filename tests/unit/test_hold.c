/* The queue: its order against a plain sort, its bounds on waiting, tenants, what comes before whom, and what a death leaves. */
#include "hold.h"
#include "rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#define MS 1000000ull
#define SECOND 1000000000ull
enum { MAX = 600 };

typedef struct queue { pdr_hold h; uint64_t now, drawn, tickets; } queue;

static uint64_t draw(queue *q, uint64_t n) { return pdr_random_at(11, ++q->drawn) % n; }

static void begin(queue *q)
{
    *q = (queue){.now = 1000 * SECOND};
    q->h.head = calloc(1, sizeof *q->h.head);
    q->h.slots = calloc(MAX, sizeof *q->h.slots);
    q->h.lanes = calloc(MAX, sizeof *q->h.lanes);
    q->h.active = calloc(MAX, sizeof *q->h.active);
    q->h.first.came = calloc(pdr_hold_groups(MAX) * PDR_LEAST_OF * 3, sizeof *q->h.first.came);
    q->h.first.half = q->h.first.came + pdr_hold_groups(MAX) * PDR_LEAST_OF;
    q->h.first.inverse = q->h.first.half + pdr_hold_groups(MAX) * PDR_LEAST_OF;
    q->h.turn.v = calloc(pdr_hold_groups(MAX) * PDR_LEAST_OF, sizeof *q->h.turn.v);
    q->h.turn.least = calloc(pdr_hold_groups(MAX), sizeof *q->h.turn.least);
    q->h.turn.mask = calloc(pdr_hold_groups(MAX), sizeof *q->h.turn.mask);
    q->h.ranked = calloc(MAX, sizeof *q->h.ranked);
    q->h.bucket = calloc(pdr_hold_buckets(MAX), sizeof *q->h.bucket);
    assert_true(q->h.head && q->h.slots && q->h.lanes && q->h.active && q->h.first.came && q->h.turn.v && q->h.turn.least && q->h.turn.mask && q->h.ranked && q->h.bucket);
    pdr_hold_init(&q->h, MAX);
}

static void sound(const queue *q)
{
    char why[200];
    if (pdr_hold_check(&q->h, why, sizeof why)) fail_msg("%s", why);
}

static void end(queue *q)
{
    sound(q);
    free(q->h.head);
    free(q->h.slots);
    free(q->h.lanes);
    free(q->h.active);
    free(q->h.first.came);
    free(q->h.turn.v);
    free(q->h.turn.least);
    free(q->h.turn.mask);
    free(q->h.ranked);
    free(q->h.bucket);
}

static uint32_t add(queue *q, uint64_t size_us, int64_t priority, uint64_t tenant, uint64_t may_wait_ns)
{
    pdr_job  job = {.prompt_tokens = 1000};
    uint32_t slot = pdr_hold_add(&q->h, &job, NULL, 0);
    assert_int_not_equal(slot, PDR_NONE);
    pdr_held *s = &q->h.slots[slot];
    s->enqueued_ns = q->now;
    s->deadline_ns = q->now + may_wait_ns;
    s->size_us = size_us;
    s->priority = priority;
    s->tenant = tenant;
    pdr_hold_commit(&q->h, slot, ++q->tickets);
    return slot;
}

static uint32_t next(const queue *q, uint64_t ageing_us)
{
    pdr_hold_pass(&q->h, q->now);
    return pdr_hold_next(&q->h, ageing_us, q->now);
}

static uint32_t serve(queue *q, uint64_t ageing_us)
{
    uint32_t slot = next(q, ageing_us);
    assert_int_not_equal(slot, PDR_NONE);
    pdr_hold_charge(&q->h, q->h.slots[slot].tenant, q->h.slots[slot].size_us, q->now, pdr_held_is_old(&q->h.slots[slot], q->now));
    pdr_hold_remove(&q->h, slot);
    return slot;
}

/* (W + age) / size, as exact as it gets. */
static double urgency(const pdr_held *s, uint64_t ageing_us, uint64_t now) { return ((double)ageing_us + (double)(now - s->enqueued_ns) / 1e3) / (double)s->size_us; }

static void nobody_goes_before_one_much_more_urgent(void **state)
{
    (void)state;
    queue q;
    begin(&q);
    for (int round = 0; round < 3000; round++) {
        q.now += draw(&q, 30 * MS);
        if (q.h.head->held < MAX && draw(&q, 2)) {
            add(&q, 1000 + draw(&q, 1000) * draw(&q, 3000), (int64_t)draw(&q, 3) - 1, 0, 3600 * SECOND);
        } else if (q.h.head->held) {
            uint64_t W = 1 + draw(&q, 3000000);
            uint32_t slot = next(&q, W);
            const pdr_held *s = &q.h.slots[slot];
            for (uint32_t i = 0; i < MAX; i++) {
                const pdr_held *o = &q.h.slots[i];
                if (!o->booking || i == slot) continue;
                assert_true(o->priority <= s->priority);
                if (o->priority == s->priority) assert_true(urgency(o, W, q.now) <= urgency(s, W, q.now) * 1.14); /* a size step is 9 to 13 % */
            }
            if (draw(&q, 3)) pdr_hold_remove(&q.h, slot);
        }
        if (round % 100 == 0) sound(&q);
    }
    end(&q);
}

static void a_pass_sees_everybody_once(void **state)
{
    (void)state;
    queue   q;
    uint8_t seen[MAX] = {0};
    begin(&q);
    for (int i = 0; i < 300; i++) {
        q.now += MS;
        add(&q, 1000 + draw(&q, 100) * 10000, 0, draw(&q, 4), 3600 * SECOND);
    }
    pdr_hold_pass(&q.h, q.now);
    for (int i = 0; i < 300; i++) {
        uint32_t slot = pdr_hold_next(&q.h, 1000, q.now);
        assert_int_not_equal(slot, PDR_NONE);
        assert_int_equal(seen[slot]++, 0);
        if (i % 3 == 0) pdr_hold_remove(&q.h, slot); /* served in between */
    }
    assert_int_equal(pdr_hold_next(&q.h, 1000, q.now), PDR_NONE);
    assert_int_equal(q.h.head->held, 200);
    end(&q);
}

/* The order of a pass against a plain comparison of everybody with everybody (all may wait equally long, so that lanes are in that order too). */
static void the_order_is_that_of_the_places(void **state)
{
    (void)state;
    queue    q;
    uint32_t place[MAX];
    begin(&q);
    for (int round = 0; round < 60; round++) {
        for (uint64_t i = draw(&q, 40); i-- > 0 && q.h.head->held < MAX;) {
            q.now += draw(&q, 200 * MS);
            add(&q, 1000 + draw(&q, 300) * draw(&q, 3000), (int64_t)draw(&q, 3), draw(&q, 5), 60 * SECOND);
        }
        uint64_t W = 1 + draw(&q, 3000000);
        uint32_t held = q.h.head->held;
        pdr_hold_charge(&q.h, draw(&q, 5), draw(&q, 2000000), q.now, !draw(&q, 8));
        pdr_hold_pass(&q.h, q.now);
        for (uint32_t i = 0; i < MAX; i++)
            if (q.h.slots[i].booking) place[i] = pdr_hold_standing(&q.h, &q.h.slots[i], W, q.now).place;
        for (uint32_t i = 0; i < held; i++) {
            uint32_t slot = pdr_hold_next(&q.h, W, q.now), other = (uint32_t)draw(&q, MAX);
            assert_int_not_equal(slot, PDR_NONE);
            assert_int_equal(place[slot], i);
            if (draw(&q, 8)) continue;
            if (draw(&q, 4)) {
                pdr_hold_remove(&q.h, slot); /* served */
            } else if (q.h.slots[other].booking) { /* gone, looked at or not: the others keep their order */
                uint32_t gone = place[other];
                pdr_hold_remove(&q.h, other);
                if (gone <= i) continue;
                held--;
                for (uint32_t k = 0; k < MAX; k++) place[k] -= q.h.slots[k].booking && place[k] > gone;
            }
        }
        assert_int_equal(pdr_hold_next(&q.h, W, q.now), PDR_NONE);
        sound(&q);
    }
    end(&q);
}

static void half_of_the_time_is_the_bound(void **state)
{
    (void)state;
    queue q;
    begin(&q);
    uint32_t large = add(&q, 20000000, 0, 0, 60 * SECOND);
    for (int s = 0; s < 29; s++) {
        q.now += SECOND;
        for (int i = 0; i < 5; i++) add(&q, 10000, 0, 0, 60 * SECOND);
        assert_int_not_equal(serve(&q, 1000000), large); /* small ones are always more urgent */
    }
    q.now += SECOND;
    add(&q, 10000, 0, 0, 60 * SECOND);
    assert_int_equal(next(&q, 1000000), large);
    add(&q, 10000, 1, 0, 60 * SECOND);
    assert_int_not_equal(next(&q, 1000000), large); /* but for a higher priority */
    end(&q);
}

/* In an overload that lasts, everybody has waited for half of his time at last. An eighth of the work is for them, oldest first: small requests that come are still served soon. */
static void those_who_have_waited_get_an_eighth(void **state)
{
    (void)state;
    queue    q;
    uint64_t work[2] = {0, 0}, last = 0;
    begin(&q);
    for (int i = 0; i < 100; i++) add(&q, 1000000, 0, 0, 600 * SECOND);
    q.now += 301 * SECOND;
    for (int i = 0; i < 3000; i++) {
        const pdr_held *s;
        if (!q.h.head->held || draw(&q, 20)) add(&q, 50000, 0, 0, 600 * SECOND);
        s = &q.h.slots[serve(&q, 100000000)];
        int large = s->size_us == 1000000;
        if (large) assert_true(s->sequence == last + 1); /* the oldest */
        if (large) last = s->sequence;
        else assert_true(q.now - s->enqueued_ns < 20 * SECOND);
        work[large] += s->size_us;
        q.now += s->size_us * 1000;
        if (!large) continue;
        for (int k = 0; k < 19; k++) add(&q, 50000, 0, 0, 600 * SECOND); /* as many as come in that time: nearly all that can be done */
    }
    double part = (double)work[1] / (double)(work[0] + work[1]);
    assert_true(part > .1 && part < .16);
    end(&q);
}

/* One tenant asks for ten times as much as the other: each gets half while both want it. */
static void a_greedy_tenant_waits_longer(void **state)
{
    (void)state;
    queue    q;
    uint64_t served[2] = {0, 0};
    begin(&q);
    for (int i = 0; i < 400; i++) add(&q, 50000, 0, 7, 3600 * SECOND);
    for (int i = 0; i < 400; i++) {
        q.now += 50 * MS;
        if (i % 10 == 0)
            for (int k = 0; k < 6; k++) add(&q, 50000, 0, 8, 3600 * SECOND);
        served[q.h.slots[serve(&q, 20000000)].tenant == 8]++;
        if (q.h.head->held < MAX - 20) add(&q, 50000, 0, 7, 3600 * SECOND);
    }
    assert_in_range(served[1], 140, 240); /* of 240 asked for; without accounts it gets 60 */
    end(&q);
}

static void one_tenant_alone_is_not_slowed(void **state)
{
    (void)state;
    queue q;
    begin(&q);
    pdr_hold_charge(&q.h, 7, 1000000000, q.now, 0);
    uint32_t small = add(&q, 10000, 0, 7, 60 * SECOND);
    add(&q, 20000, 0, 7, 60 * SECOND);
    assert_int_equal(next(&q, 1000), small);
    end(&q);
}

/* Having waited for half of the time brings nobody before others who had more than his share: else a flood that is old enough goes before all who come. */
static void a_flood_does_not_go_first_by_age(void **state)
{
    (void)state;
    queue q;
    begin(&q);
    pdr_hold_charge(&q.h, 7, 20000000, q.now, 0);
    uint32_t small = add(&q, 10000, 0, 7, 60 * SECOND), flood = add(&q, 2000000, 0, 7, 60 * SECOND), large = add(&q, 1000000, 0, 8, 60 * SECOND);
    q.now += 31 * SECOND;
    assert_int_equal(next(&q, 1000000), large); /* it had no more than its share, and half of its time is over */
    pdr_hold_remove(&q.h, large);
    assert_int_equal(next(&q, 1000000), small); /* one tenant alone: the oldest */
    uint32_t fresh = add(&q, 1000000, 0, 8, 60 * SECOND);
    assert_int_equal(next(&q, 1000000), small);
    pdr_hold_remove(&q.h, small);
    assert_int_equal(next(&q, 1000000), flood); /* (1 + 31) / 2 / 4, four being the square of two shares, against 1 / 1 */
    q.now -= 29 * SECOND;
    assert_int_equal(next(&q, 1000000), fresh);
    pdr_hold_remove(&q.h, fresh);
    assert_int_equal(next(&q, 1000000), flood);
    end(&q);
}

static void what_comes_before(void **state)
{
    (void)state;
    queue q;
    begin(&q);
    add(&q, 10000, 0, 0, 60 * SECOND);
    add(&q, 100000, 0, 0, 60 * SECOND);
    add(&q, 1000000, 0, 0, 60 * SECOND);
    add(&q, 1000000, 5, 0, 60 * SECOND);
    assert_int_equal(pdr_hold_ahead_us(&q.h, 100000, 0), 1110000);
    assert_int_equal(pdr_hold_ahead_us(&q.h, 5000, 0), 1000000);
    assert_int_equal(pdr_hold_ahead_us(&q.h, 5000, 6), 0);
    uint32_t slot = add(&q, 300000, 0, 0, 60 * SECOND);
    pdr_standing x = pdr_hold_standing(&q.h, &q.h.slots[slot], 1000000, q.now);
    assert_int_equal(x.place, 3);
    assert_int_equal(x.ahead_us, 1110000);
    pdr_held guest = {.enqueued_ns = q.now, .deadline_ns = q.now + 60 * SECOND, .size_us = 50000, .sequence = UINT64_MAX};
    x = pdr_hold_standing(&q.h, &guest, 1000000, q.now); /* not in the queue */
    assert_int_equal(x.place, 2);
    assert_int_equal(x.ahead_us, 1010000);
    end(&q);
}

/* For admission: who had no more than his share does not wait for all that a flood has held of smaller ones. */
static void what_comes_before_a_tenant(void **state)
{
    (void)state;
    const uint64_t far = UINT64_MAX;
    queue          q;
    begin(&q);
    pdr_hold_charge(&q.h, 7, 20000000, q.now, 0);
    add(&q, 10000, 0, 7, 60 * SECOND);
    add(&q, 1000000, 0, 7, 60 * SECOND);
    assert_int_equal(pdr_hold_ahead_of_us(&q.h, 1500000, 0, 7, far, q.now), 1010000); /* one tenant: all that are not larger */
    assert_int_equal(pdr_hold_ahead_of_us(&q.h, 1500000, 0, 8, far, q.now), 10000);   /* twice its share counts as four times the size */
    assert_int_equal(pdr_hold_ahead_of_us(&q.h, 5000000, 0, 8, far, q.now), 1010000);
    assert_int_equal(pdr_hold_ahead_of_us(&q.h, 5000000, 0, 8, 300000, q.now), 300000); /* after half of its time none of those goes before it */
    assert_int_equal(pdr_hold_ahead_of_us(&q.h, 5000000, -1, 8, 300000, q.now), 1010000); /* but for those of a higher priority */
    add(&q, 400000, 0, 8, 60 * SECOND);
    assert_int_equal(pdr_hold_ahead_of_us(&q.h, 1500000, 0, 8, far, q.now), 410000);
    assert_int_equal(pdr_hold_ahead_of_us(&q.h, 150000, 0, 7, far, q.now), 410000); /* and the other way round */
    assert_int_equal(pdr_hold_ahead_of_us(&q.h, 90000, 0, 7, far, q.now), 10000);
    q.now += 3600 * SECOND; /* what was served is forgotten */
    assert_int_equal(pdr_hold_ahead_of_us(&q.h, 1500000, 0, 8, far, q.now), 1410000);
    end(&q);
}

/* Whatever was half done when a process died: from the slots alone the same queue comes out. */
static void a_rebuilt_queue_has_the_same_order(void **state)
{
    (void)state;
    queue    q;
    uint32_t order[300];
    begin(&q);
    for (int i = 0; i < 400; i++) {
        q.now += MS;
        uint32_t slot = add(&q, 1000 + draw(&q, 300) * 3000, (int64_t)draw(&q, 2), draw(&q, 3), 3600 * SECOND);
        if (i % 4 == 0) pdr_hold_remove(&q.h, slot);
    }
    pdr_hold_pass(&q.h, q.now);
    for (int i = 0; i < 300; i++) order[i] = pdr_hold_next(&q.h, 50000, q.now);
    for (uint32_t i = 0; i < MAX; i++) q.h.lanes[i].first = q.h.lanes[i].last = (uint32_t)draw(&q, UINT32_MAX);
    pdr_hold_rebuild(&q.h);
    sound(&q);
    pdr_hold_pass(&q.h, q.now);
    for (int i = 0; i < 300; i++) assert_int_equal(pdr_hold_next(&q.h, 50000, q.now), order[i]);
    end(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_goes_before_one_much_more_urgent), cmocka_unit_test(a_pass_sees_everybody_once),
        cmocka_unit_test(the_order_is_that_of_the_places),
        cmocka_unit_test(those_who_have_waited_get_an_eighth),
        cmocka_unit_test(half_of_the_time_is_the_bound),           cmocka_unit_test(a_greedy_tenant_waits_longer),
        cmocka_unit_test(a_flood_does_not_go_first_by_age),
        cmocka_unit_test(one_tenant_alone_is_not_slowed),          cmocka_unit_test(what_comes_before),
        cmocka_unit_test(what_comes_before_a_tenant),
        cmocka_unit_test(a_rebuilt_queue_has_the_same_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
