; A litmus test of TLB shoot-down by interprocessor interrupt (Intel SDM vol. 3A
; §4.10.5). Every vCPU starts here in real mode with its number in EDI. Each turn,
; vCPU 0 points the entry of the page at VIEW to the other of two frames, interrupts
; the others, which INVLPG and acknowledge, and then poisons the frame that was
; there. An access by the old translation after the acknowledgement is an outcome:
;   bit 0  a load saw the poison
;   bit 1  a store went into the old frame
;   bit 2  the poisoned code was executed
; HIST counts outcomes, as in litmus.asm.
%include "common.inc"
CPUS    equ 0x5004              ; given: number of vCPUs
STOP    equ 0x5008              ; the host wants the end
TURN    equ 0x500c              ; turns so far
LAST    equ 0x5010              ; vCPU 0 has seen STOP
READY   equ 0x5014              ; page tables and IDT are there
ACKED   equ 0x5018              ; acknowledgements so far
STALE   equ 0x501c              ; what the others saw this turn
HIST    equ 0x5100              ; a dword for each outcome
ROUNDS  equ 0x5400              ; a dword for each vCPU: its accesses so far
FRAMES  equ 0x9000              ; and 0xa000
PD1     equ 0x73000             ; of the second GiB, where VIEW is
TABLE   equ 0x76000
IDT     equ 0x77000
APIC    equ 0xfee00000
VIEW    equ 0x40000000
; a frame:
VALUE   equ 0
STORES  equ 0x40                ; a dword for each vCPU
CODE    equ 0x100               ; mov eax, VALUE; ret
POISON  equ -1

main:   PROTECTED
        mov ebp, edi
        or ebp, ebp
        jnz .wait
        TABLES
        mov dword [PD1], TABLE+3
        mov dword [TABLE], FRAMES+0x1063
        mov dword [TABLE+4], 0
        mov ecx, 16*0x41/4
        mov edi, IDT
        xor eax, eax
        rep stosd
        mov dword [IDT+16*0x40], 0x180000+flush
        mov dword [IDT+16*0x40+4], 0x8e00
        mov ebx, FRAMES+0x1000
        call fill
        mov dword [READY], 1
.wait:  pause
        cmp dword [READY], 1
        jne .wait
        ENTER64
        mov eax, ebp
        shl eax, 12
        sub rsp, rax            ; a stack for each
        mov edi, ebp
        lidt [idtr]
        mov r8d, APIC
        mov dword [r8+0xf0], 0x1ff
        mov dword [r8+0x80], 0
        or edi, edi
        jz writer

; The others access the page until the end, with interrupts open.
reader: sti
.next:  mov eax, [VIEW+VALUE]
        cmp eax, POISON
        jne .store
        lock or dword [STALE], 1
.store: mov dword [VIEW+STORES+rdi*4], 1
        mov eax, VIEW+CODE
        call rax
        cmp eax, POISON
        jne .count
        lock or dword [STALE], 4
.count: inc dword [ROUNDS+rdi*4]
        cmp dword [LAST], 0
        je .next
stay:   cli
        hlt
        jmp stay

flush:  invlpg [VIEW]
        lock inc dword [ACKED]
        mov dword [r8+0xb0], 0
        iretq

writer: call rounds             ; all have begun
        xor ebp, ebp            ; acknowledgements that are due
.turn:  mov eax, [TURN]
        mov ebx, eax
        and ebx, 1
        shl ebx, 12
        mov esi, ebx
        xor esi, 0x1000
        add ebx, FRAMES         ; to be the page
        add esi, FRAMES         ; was it
        inc eax
        call fill64
        mov eax, ebx
        or al, 0x63             ; dirty, accessed, writable, present
        mov [TABLE], eax
        mov dword [r8+0x310], 0
        mov dword [r8+0x300], 0xc4040 ; all others, vector 0x40
        mov eax, [CPUS]
        dec eax
        add ebp, eax
.acks:  pause
        cmp [ACKED], ebp
        jne .acks
        mov ebx, esi
        mov eax, POISON
        call fill64
        call rounds             ; an access that was under way has ended
        mov dword [rsi+STORES+4], 0
        mov dword [rsi+STORES+8], 0
        mov dword [rsi+STORES+12], 0
        call rounds
        xor eax, eax
        xchg eax, [STALE]
        mov ecx, [rsi+STORES+4]
        or ecx, [rsi+STORES+8]
        or ecx, [rsi+STORES+12]
        jz .none
        or al, 2
.none:  inc dword [HIST+rax*4]
        inc dword [TURN]
        cmp dword [STOP], 0
        je .turn
        mov dword [LAST], 1
        DONE

; FILL gives the frame at EBX the value EAX.
%macro FILL 0
        mov byte [ebx+CODE], 0xb8
        mov [ebx+CODE+1], eax
        mov byte [ebx+CODE+5], 0xc3
        mov [ebx+VALUE], eax
        ret
%endmacro
fill64: FILL
bits 32
fill:   FILL
bits 64

; rounds waits until each of the others has accessed the page twice.
rounds: mov ecx, [CPUS]
.cpu:   dec ecx
        jz .out
        mov edx, [ROUNDS+rcx*4]
.wait:  pause
        mov eax, [ROUNDS+rcx*4]
        sub eax, edx
        cmp eax, 2
        jb .wait
        jmp .cpu
.out:   ret

idtr:   dw 0x41*16-1
        dq IDT
