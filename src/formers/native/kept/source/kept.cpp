// Memory of large tensors, kept for the next ones. malloc gives a block of more than 32 MiB back to the system when it is
// freed, and the next one begins with pages that the system has to fill with zeros, at a fraction of the speed of memory.
//
// What is used and what is kept are together never more than was once used at a time, and what is kept never more than a
// quarter of the memory that is to be had. The system may take the pages of a kept block whenever it needs them.
#include <cstdint>
#include <cstdio>
#include <deque>
#include <iterator>
#include <memory>
#include <mutex>
#include <new>

#ifdef __linux__
#include <pthread.h>
#include <sys/mman.h>
#endif

#define FACE extern "C" __attribute__((visibility("default")))

namespace {

// A tensor as DLPack hands it from library to library: `forget` is called when nobody uses it any more.
struct Handed {
    void* data;
    int32_t device, device_number;
    int32_t dims;
    uint8_t type, bits;
    uint16_t lanes;
    int64_t *shape, *strides;
    uint64_t offset;
    void* keeper;
    void (*forget)(Handed*);
};

constexpr int32_t CPU = 1;
constexpr uint8_t FLOAT = 2;
constexpr int64_t MOST_DIMS = 8;

struct Block {
    char* data;
    int64_t bytes;
    bool again;  // it has been used before
};

struct Tensor : Handed {
    Block block;
    int64_t sizes[2 * MOST_DIMS];
};

#ifdef __linux__

constexpr int64_t PAGE = 2 << 20;  // a large one

int64_t rounded(int64_t bytes, int64_t to) { return (bytes + to - 1) / to * to; }

// So that sequences of nearly the same length share their blocks; pages that nobody touches cost nothing.
int64_t size_of_block(int64_t bytes) {
    int64_t step = PAGE;
    while (16 * step <= bytes) step *= 2;
    return rounded(bytes, step);
}

Block mapped(int64_t bytes) {
    void* found = mmap(nullptr, bytes + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (found == MAP_FAILED) return {nullptr, 0, false};
    char *first = static_cast<char*>(found), *data = reinterpret_cast<char*>(rounded(reinterpret_cast<intptr_t>(found), PAGE));
    if (data > first) munmap(first, data - first);
    if (first + PAGE > data) munmap(data + bytes, first + PAGE - data);
    return {data, bytes, false};
}

// A block that is used once costs no more than one of malloc's. One that is used again gets large pages, which are found
// faster, but which the system needs long to make.
void rest(Block& block) {
    if (!block.again) {
        madvise(block.data, block.bytes, MADV_DONTNEED);
        madvise(block.data, block.bytes, MADV_HUGEPAGE);
    } else {
        madvise(block.data, block.bytes, MADV_FREE);
    }
    block.again = true;
}

// Bytes that a process can get without swapping; kept ones are among them.
int64_t available() {
    long long found = 0;
    char line[128];
    const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen("/proc/meminfo", "r"), &std::fclose);
    while (file && std::fgets(line, sizeof line, file.get()) && std::sscanf(line, "MemAvailable: %lld", &found) != 1) {
    }
    return found << 10;
}

class Kept {
   public:
    // Null data: there is no memory.
    Block take(int64_t bytes) {
        const std::lock_guard<std::mutex> guard(lock);
        const int64_t wanted = size_of_block(bytes);
        Block block = found(wanted);
        if (!block.data) block = mapped(wanted);
        if (!block.data) return block;
        used += block.bytes;
        most_used = used > most_used ? used : most_used;
        give_back(most_used - used);
        return block;
    }

    void give(Block block) {
        rest(block);
        const std::lock_guard<std::mutex> guard(lock);
        used -= block.bytes;
        kept += block.bytes;
        blocks.push_back(block);
        give_back(available() / 4);
    }

    void hold() { lock.lock(); }
    void let_go() { lock.unlock(); }

    void release() {
        const std::lock_guard<std::mutex> guard(lock);
        give_back(0);
    }

    void tell(int64_t* of_used, int64_t* of_kept) {
        const std::lock_guard<std::mutex> guard(lock);
        *of_used = used;
        *of_kept = kept;
    }

   private:
    // The latest that is large enough and not much larger.
    Block found(int64_t bytes) {
        for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) {
            if (block->bytes < bytes || block->bytes > bytes + bytes / 4) continue;
            const Block mine = *block;
            kept -= mine.bytes;
            blocks.erase(std::next(block).base());
            return mine;
        }
        return {nullptr, 0, false};
    }

    // The oldest, until no more than so much is kept.
    void give_back(int64_t most) {
        for (; kept > most; blocks.pop_front()) {
            kept -= blocks.front().bytes;
            munmap(blocks.front().data, blocks.front().bytes);
        }
    }

    std::mutex lock;
    std::deque<Block> blocks;
    int64_t used = 0, kept = 0, most_used = 0;
};

#else

class Kept {
   public:
    Block take(int64_t) { return {nullptr, 0, false}; }
    void give(Block) {}
    void release() {}
    void tell(int64_t* used, int64_t* kept) { *used = *kept = 0; }
};

#endif

// Never destroyed: tensors may outlive everything else.
Kept& kept() {
    static Kept* const all = new Kept;
    return *all;
}

#ifdef __linux__
// A process that is forked while another thread has the lock would wait for it for ever.
const int at_fork = pthread_atfork([] { kept().hold(); }, [] { kept().let_go(); }, [] { kept().let_go(); });
#endif

void forget(Handed* handed) {
    Tensor* const tensor = static_cast<Tensor*>(handed);
    kept().give(tensor->block);
    delete tensor;
}

}  // namespace

// Room for `bytes` as a tensor of floats, for DLPack; null where there is none.
FACE void* formers_take_kept(int64_t bytes, int64_t dims, const int64_t* shape, const int64_t* strides) {
    if (dims > MOST_DIMS) return nullptr;
    std::unique_ptr<Tensor> tensor(new (std::nothrow) Tensor);
    if (!tensor || !(tensor->block = kept().take(bytes)).data) return nullptr;
    int64_t* const sizes = tensor->sizes;
    for (int64_t i = 0; i < dims; i++) sizes[i] = shape[i], sizes[dims + i] = strides[i];
    static_cast<Handed&>(*tensor) = {tensor->block.data, CPU,          0, int32_t(dims), FLOAT, 32, 1, sizes,
                                     sizes + dims,       0, tensor.get(), forget};
    return static_cast<Handed*>(tensor.release());
}

// Gives all that is kept back to the system.
FACE void formers_release_kept() { kept().release(); }

// Bytes that tensors use, and that are kept for others.
FACE void formers_tell_kept(int64_t* used, int64_t* of_kept) { kept().tell(used, of_kept); }
