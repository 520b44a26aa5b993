; Litmus tests of the memory model. Every vCPU starts here in real mode with its
; number in DI. Each turn, vCPU n runs the test's n-th routine, which leaves what it
; saw as bits of AL; the turn's bits together are one outcome, and HIST counts
; outcomes. The host reads HIST and knows which outcomes are forbidden.
%include "common.inc"
WHICH   equ 0x5000              ; given: number of the test
CPUS    equ 0x5004              ; and of vCPUs
STOP    equ 0x5008              ; the host wants the end
TURN    equ 0x500c              ; turns so far
LAST    equ 0x5010              ; vCPU 0 has seen STOP
SEEN    equ 0x5020              ; a byte for each vCPU
HIST    equ 0x5100              ; a dword for each outcome
ARRIVED equ 0x5400
X       equ 0x6000
Y       equ 0x6100
; the counters of `count`
C8      equ 0x6201
C16     equ 0x6212
C32     equ 0x6224
CADD    equ 0x6238
C64     equ 0x6248
CODD    equ 0x6261              ; not aligned
CLINE   equ 0x62be              ; across two cache lines
CLOCK   equ 0x6300              ; under the lock at CLOCK+4
CBIT    equ 0x6340              ; under bit 3 of CBIT+5
CPAGE   equ 0x7ffe              ; across two pages
FLAG    equ 0x6400
ACK     equ 0x6440
PAGES   equ 0x9000              ; seven pages of code that is rewritten

main:   xor ebp, ebp
        mov sp, di
        shl sp, 8
        add sp, 0x4000          ; a stack for each
        mov bx, [WHICH]
        shl bx, 3
        add bx, di
        add bx, di
        mov bx, [cs:tests+bx]   ; stays
turn:   call meet
        mov cx, [TURN]          ; vary who is first, and by how much
        test di, 1
        jz .even
        shr cx, 4
.even:  and cx, 15
        inc cx
.delay: loop .delay
        push bx
        push di
        call bx
        pop di
        pop bx
        mov [SEEN+di], al
        call meet
        or di, di
        jnz .next
        mov al, [SEEN]
        or al, [SEEN+1]
        or al, [SEEN+2]
        or al, [SEEN+3]
        movzx si, al
        shl si, 2
        inc dword [HIST+si]
        mov dword [X], 0
        mov dword [Y], 0
        inc dword [TURN]
        mov eax, [STOP]
        mov [LAST], eax
.next:  call meet
        cmp dword [LAST], 0
        je turn
        or di, di
        jnz stay
        DONE
stay:   cli
        hlt
        jmp stay

; meet returns when all vCPUs are here.
meet:   add ebp, [CPUS]
        mov cx, 200             ; first without PAUSE: then all leave together
        lock inc dword [ARRIVED]
.wait:  cmp [ARRIVED], ebp
        jae .out
        loop .wait
        inc cx
        pause
        jmp .wait
.out:   ret

tests:  dw sb0, sb1, none, none
        dw sbm0, sbm1, none, none
        dw sbx0, sbx1, none, none
        dw sbc0, sbc1, none, none
        dw lb0, lb1, none, none
        dw mp0, mp1, none, none
        dw co0, co1, none, none
        dw setx, sety, iriw2, iriw3
        dw count, count, count, count
        dw pages, pages, pages, pages
        dw seq0, seq1, seq1, seq1
        dw patch0, patch1, none, none
        dw device, none, none, none

none:   xor al, al
        ret

; %1 stores to %2 by %3 and then loads %4 into bit %5.
%macro storeload 5
%1:     mov ecx, 1
        %3 [%2], ecx
%%fence:
        mov eax, [%4]
        shl al, %5
        ret
%endmacro
%macro plain 2
        mov %1, %2
%endmacro
%macro fenced 2
        mov %1, %2
        mfence
%endmacro
%macro locked 2
        xchg %1, %2
%endmacro
%macro serial 2
        mov %1, %2
        xor eax, eax
        cpuid
%endmacro
        storeload sb0, X, plain, Y, 0
        storeload sb1, Y, plain, X, 1
        storeload sbm0, X, fenced, Y, 0
        storeload sbm1, Y, fenced, X, 1
        storeload sbx0, X, locked, Y, 0
        storeload sbx1, Y, locked, X, 1
        storeload sbc0, X, serial, Y, 0
        storeload sbc1, Y, serial, X, 1

; Load buffer: each loads what the other stores afterwards.
lb0:    mov eax, [X]
        mov dword [Y], 1
        ret
lb1:    mov eax, [Y]
        mov dword [X], 1
        shl al, 1
        ret

; Message passing: who sees the flag Y sees the message X.
mp0:    mov dword [X], 1
        mov dword [Y], 1
        jmp none
mp1:    mov eax, [Y]
        mov edx, [X]
        shl al, 1
        or al, dl
        ret

; Coherence: one place is never seen to go back.
co0:    mov dword [X], 1
        mov dword [X], 2
        jmp none
co1:    mov eax, [X]
        mov edx, [X]
        shl al, 2
        or al, dl
        ret

; Independent reads of independent writes: all see one order.
setx:   mov dword [X], 1
        jmp none
sety:   mov dword [Y], 1
        jmp none
iriw2:  mov eax, [X]
        mov edx, [Y]
        shl dl, 1
        or al, dl
        ret
iriw3:  mov eax, [Y]
        mov edx, [X]
        shl dl, 1
        or al, dl
        shl al, 2
        ret

; Counters of all widths, each counted once a turn by everybody.
count:  lock inc byte [C8]
        lock add word [C16], 1
        lock sub dword [C32], -1
        mov eax, 1
        lock xadd [CADD], eax
        lock inc dword [CODD]
        lock inc dword [CLINE]
        mov eax, [C64]          ; any value will do: a wrong one is corrected
        mov edx, [C64+4]
.again: mov ebx, eax
        mov ecx, edx
        add ebx, 1
        adc ecx, 0
        lock cmpxchg8b [C64]
        jnz .again
.spin:  mov al, 1
        xchg [CLOCK+4], al
        or al, al
        jz .mine
        pause
        jmp .spin
.mine:  inc dword [CLOCK]
        mov byte [CLOCK+4], 0
.bit:   lock bts word [CBIT+5], 3
        jnc .have
        pause
        jmp .bit
.have:  inc dword [CBIT]
        lock btr word [CBIT+5], 3
        jmp none

pages:  lock inc dword [CPAGE]
        jmp none

; A sequence lock: the writer keeps X and Y equal but for the time that the count at
; X+8 is odd. A reader that sees an even count before and the same after saw them equal.
seq0:   mov cx, 4
.next:  inc dword [X+8]
        inc dword [X]
        inc dword [Y]
        inc dword [X+8]
        loop .next
        jmp none
seq1:   mov cx, 8
.next:  mov eax, [X+8]
        mov esi, [X]
        mov edx, [Y]
        cmp eax, [X+8]
        jne .retry
        test al, 1
        jnz .retry
        cmp esi, edx
        jne .torn
.retry: loop .next
        jmp none
.torn:  mov al, 1
        ret

; Cross-modifying code (Intel SDM vol. 3A §8.1.3): one writes an instruction and then
; a flag; the other sees the flag, serialises, and executes it. They take turns.
patch0: test byte [TURN], 1
        jz writer
        jmp reader
patch1: test byte [TURN], 1
        jnz writer
reader: mov eax, [TURN]
        inc eax
.wait:  cmp [FLAG], eax
        jne .wait
        xor eax, eax
        cpuid
        call where
        call si
        cmp ax, [TURN]
        jne .stale
        jmp none
.stale: mov al, 1
        ret
writer: call where
        mov eax, [TURN]
        mov byte [si], 0xb8     ; mov ax, TURN
        mov byte [si+3], 0xc3   ; ret
        mov [si+1], ax
        inc eax
        mov [FLAG], eax
        jmp none
; where points SI at this turn's page of code.
where:  mov ax, [TURN]
        xor dx, dx
        mov cx, 7
        div cx
        mov si, dx
        shl si, 12
        add si, PAGES+0xf
        ret

; The host writes code and then FLAG; ACK tells it to go on.
device: mov edx, [ACK]
.wait:  cmp dword [STOP], 0
        jne none
        mov eax, [FLAG]
        cmp eax, edx
        je .wait
        mov edx, eax
        mov si, PAGES+0xf
        call si
        cmp ax, dx
        mov [ACK], edx
        mov al, 0
        je .out
        inc al
.out:   ret
