// A helper that now and then comes back too late goes on; one that others wait for half of the time rests, and longer each time.
#include "crew.h"

#include <cstdio>

namespace {

using std::chrono::milliseconds;

// Has others wait for `lost` of every `period` until the helper rests; how many times that took, at most 100.
int until_it_rests(Helper& helper, Clock::time_point& now, milliseconds period, milliseconds lost) {
    int times = 0;
    while (helper.may_work(now) && times < 100) {
        now += period;
        helper.lose(now, lost);
        times++;
    }
    return times;
}

}  // namespace

int main() {
    Job job(2);
    Helper helper(job);
    Clock::time_point now = Clock::now();
    int wrong = until_it_rests(helper, now, milliseconds(100), milliseconds(5)) != 100;
    wrong += until_it_rests(helper, now, milliseconds(4), milliseconds(2)) > 10;
    wrong += helper.may_work(now + milliseconds(15)) || !helper.may_work(now + milliseconds(25));
    now += milliseconds(25);
    wrong += until_it_rests(helper, now, milliseconds(4), milliseconds(2)) > 10;
    wrong += helper.may_work(now + milliseconds(75)) || !helper.may_work(now + milliseconds(85));
    std::printf("%d\n", wrong);
    return wrong != 0;
}
