#include "pool.h"

#include <system_error>

#include "crew.h"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sys/resource.h>
#endif

namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr int64_t WORTH_SHARING = 48 << 10;  // bytes that take longer to read than a helper that is awake to join in
constexpr int64_t WORTH_WAKING = 384 << 10;  // the same for one that sleeps
constexpr microseconds SPIN{50};             // how long to wait for the last pieces before giving up the core
constexpr microseconds STALL{300};           // the last pieces took so much too long: a helper has lost its core
constexpr microseconds LULL{500};            // so long without a job: what comes is another token, or another caller
constexpr milliseconds WATCH{16};            // between looks at how often the caller lost its core,
constexpr int64_t PUSHED_OUT = 3;            // and how often is too often

std::atomic<int> forks{0};

void watch_forks() {
#if defined(__unix__) || defined(__APPLE__)
    static const int once = pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1); });
    (void)once;
#endif
}

// How often this thread was put off its core; 0 where the system does not tell.
int64_t times_pushed_out() {
#if defined(__linux__)
    rusage use;
    if (getrusage(RUSAGE_THREAD, &use) == 0) return use.ru_nivcsw;
#endif
    return 0;
}

void run_alone(int64_t pieces, void (*work)(void*, int64_t), void* with) {
    for (int64_t piece = 0; piece < pieces; piece++) work(with, piece);
}

}  // namespace

struct Pool::State {
    explicit State(int64_t of) : threads(of < 1 ? 1 : of) { watch_forks(); }

    ~State() {
        if (born != forks.load()) abandon();
    }

    // In the child of a fork there are no helpers; what is left of them cannot be joined, so it stays where it is.
    void abandon() {
        for (auto& helper : helpers) (void)helper.release();
        helpers.clear();
        (void)job.release();
        job = std::make_unique<Job>(threads);
        started = false;
        born = forks.load();
    }

    void start() {
        started = true;
        try {
            while (int64_t(helpers.size()) < threads - 1) helpers.push_back(std::make_unique<Helper>(*job));
        } catch (const std::system_error&) {
            // The machine gives no more threads: those that there are do the work.
        }
    }

    // Finds those who are awake, and those who are worth waking; false: nobody will help. One job may be too small to wake
    // anybody, but not many in a row: a helper that is awake stays so from one to the next.
    bool call_helpers(int64_t bytes, Clock::time_point now) {
        if (now - called > LULL) alone = 0;
        called = now;
        alone += bytes;
        bool any = false;
        asleep.clear();
        for (auto& helper : helpers) {
            if (!helper->may_work(now)) continue;
            const bool sleeps = helper->is_asleep();
            if (sleeps && alone < WORTH_WAKING) continue;
            if (sleeps) asleep.push_back(helper.get());
            any = true;
        }
        if (any) alone = 0;
        return any;
    }

    // Waits for the pieces that helpers still hold. Whoever holds one for longer than all the rest took has lost its core.
    void wait(Clock::time_point began) {
        const auto start = Clock::now();
        for (auto now = start; now - start < SPIN; now = Clock::now())
            for (int i = 0; i < 16; i++) {
                if (job->is_done()) return;
                breathe();
            }
        late.clear();
        auto now = start;
        while (!job->is_done()) {
            std::this_thread::sleep_for(SPIN);  // an idle core draws a helper that waits for another
            now = Clock::now();
            if (!late.empty() || now - start < STALL + (start - began)) continue;
            for (auto& helper : helpers)
                if (helper->is_working()) late.push_back(helper.get());
        }
        for (Helper* helper : late) helper->lose(now, now - start);
    }

    // The caller itself may lose its core, to helpers that were put there because theirs are taken.
    void watch(Clock::time_point now) {
        if (now - watched < WATCH) return;
        const int64_t times = times_pushed_out();
        const bool crowded = times - pushed_out >= PUSHED_OUT && now - watched < 4 * WATCH;
        watched = now;
        pushed_out = times;
        for (auto& helper : helpers) crowded ? helper->rest(now) : helper->praise(now);
    }

    void run(int64_t pieces, int64_t bytes, void (*work)(void*, int64_t), void* with) {
        if (born != forks.load()) abandon();
        if (!started) start();
        const auto began = Clock::now();
        if (!call_helpers(bytes, began)) return run_alone(pieces, work, with);
        job->publish(pieces, work, with);
        for (Helper* helper : asleep) helper->wake();
        job->labour(job->number());
        if (!job->is_done()) wait(began);
        watch(began);
    }

    const int64_t threads;
    bool started = false;
    int born = forks.load();
    std::atomic<bool> busy{false};
    std::unique_ptr<Job> job = std::make_unique<Job>(threads);
    std::vector<std::unique_ptr<Helper>> helpers;  // behind the job: they end before it does
    std::vector<Helper*> asleep, late;
    Clock::time_point watched{}, called{};
    int64_t pushed_out = 0, alone = 0;  // alone: bytes of jobs since anybody helped
};

Pool::Pool(int64_t threads) : state(new State(threads)) {}

Pool::~Pool() { delete state; }

int64_t Pool::threads() const { return state->threads; }

void Pool::run(int64_t pieces, int64_t bytes, void (*work)(void* with, int64_t piece), void* with) {
    const bool small = pieces < 2 || pieces > UINT32_MAX || bytes < WORTH_SHARING;
    if (small || state->threads == 1 || state->busy.exchange(true)) return run_alone(pieces, work, with);
    state->run(pieces, bytes, work, with);
    state->busy.store(false);
}
