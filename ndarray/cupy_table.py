"""What CuPy 14.2.0 offers: names, parameters and dtypes, for `simulated`. Made by ``python -m tests.cupy_table``.

A line of FUNCTIONS and METHODS is a name and its parameters, those with a default ending in "="; "*" begins those that are
keywords only. UFUNCS lists the functions with the same loops behind their dtypes (characters of NumPy, E is bfloat16).
"""

VERSION = "14.2.0"

FUNCTIONS = {
    "": """
all a axis= out= keepdims=
allclose a b rtol= atol= equal_nan=
amax a axis= out= keepdims=
amin a axis= out= keepdims=
angle z deg=
any a axis= out= keepdims=
append arr values axis=
apply_along_axis func1d axis arr *args **kwargs
apply_over_axes func a axes
arange start stop= step= dtype=
argmax a axis= dtype= out= keepdims=
argmin a axis= dtype= out= keepdims=
argpartition a kth axis=
argsort a axis= kind=
argwhere a
around a decimals= out=
array obj dtype= copy= order= subok= ndmin= * blocking=
array2string a *args **kwargs
array_equal a1 a2 equal_nan=
array_equiv a1 a2
array_repr arr max_line_width= precision= suppress_small=
array_split ary indices_or_sections axis=
array_str arr max_line_width= precision= suppress_small=
asanyarray a dtype= order= * copy= blocking=
asarray a dtype= order= * copy= blocking=
asarray_chkfinite a dtype= order=
ascontiguousarray a dtype=
asfortranarray a dtype=
astype x dtype * copy=
atleast_1d *arys
atleast_2d *arys
atleast_3d *arys
average a axis= weights= returned= * keepdims=
bartlett M
base_repr number base= padding=
binary_repr num width=
bincount x weights= minlength=
blackman M
broadcast_arrays *args
broadcast_shapes *args
broadcast_to array shape
can_cast from_ to casting=
choose a choices out= mode=
clip a a_min a_max out=
column_stack tup
common_type *arrays
compress condition a axis= out=
concat tup axis= out= * dtype= casting=
concatenate tup axis= out= * dtype= casting=
convolve a v mode=
copy a order=
copyto dst src casting= where=
corrcoef a y= rowvar= bias= ddof= * dtype=
correlate a v mode=
count_nonzero a axis=
cov a y= rowvar= bias= ddof= fweights= aweights= * dtype=
cross a b axisa= axisb= axisc= axis=
cumprod a axis= dtype= out=
cumsum a axis= dtype= out=
cumulative_prod x * axis= dtype= out= include_initial=
cumulative_sum x * axis= dtype= out= include_initial=
delete arr indices axis=
diag v k=
diag_indices n ndim=
diag_indices_from arr
diagflat v k=
diagonal a offset= axis1= axis2=
diff a n= axis= prepend= append=
digitize x bins right=
dot a b out=
dsplit ary indices_or_sections
dstack tup
ediff1d arr to_end= to_begin=
einsum *operands **kwargs
empty shape dtype= order=
empty_like prototype dtype= order= subok= shape=
expand_dims a axis
extract condition a
eye N M= k= dtype= order=
fill_diagonal a val wrap=
flatnonzero a
flip a axis=
fliplr a
flipud a
format_float_positional x *args **kwargs
format_float_scientific x *args **kwargs
from_dlpack array * device= copy=
frombuffer *args **kwargs
fromfile *args **kwargs
fromfunction *args **kwargs
fromiter *args **kwargs
fromstring *args **kwargs
full shape fill_value dtype= order=
full_like a fill_value dtype= order= subok= shape=
genfromtxt *args **kwargs
get_printoptions
gradient f *varargs axis= edge_order=
hamming M
hanning M
histogram x bins= range= density= weights=
histogram2d x y bins= range= weights= density=
histogramdd sample bins= range= weights= density=
hsplit ary indices_or_sections
hstack tup * dtype= casting=
identity n dtype=
imag val
indices dimensions dtype=
inner a b
interp x xp fp left= right= period=
intersect1d arr1 arr2 assume_unique= return_indices=
isclose a b rtol= atol= equal_nan=
iscomplex x
iscomplexobj x
isdtype dtype kind
isfortran a
isin element test_elements assume_unique= invert=
isneginf x out=
isposinf x out=
isreal x
isrealobj x
isscalar element
issubdtype arg1 arg2
iterable y
ix_ *args
kaiser M beta
kron a b
lexsort keys
linspace start stop num= endpoint= retstep= dtype= axis=
load file mmap_mode= allow_pickle=
loadtxt *args **kwargs
logspace start stop num= endpoint= base= dtype= axis=
mask_indices n mask_func k=
matmul *args axes= axis= keepdims= casting= dtype= signature= order= out=
matrix_transpose x
max a axis= out= keepdims=
may_share_memory a b max_work=
mean a axis= dtype= out= keepdims=
median a axis= out= overwrite_input= keepdims=
meshgrid *xi **kwargs
min a axis= out= keepdims=
min_scalar_type a
mintypecode typechars typeset= default=
moveaxis a source destination
nan_to_num x copy= nan= posinf= neginf=
nanargmax a axis= dtype= out= keepdims=
nanargmin a axis= dtype= out= keepdims=
nancumprod a axis= dtype= out=
nancumsum a axis= dtype= out=
nanmax a axis= out= keepdims=
nanmean a axis= dtype= out= keepdims=
nanmedian a axis= out= overwrite_input= keepdims=
nanmin a axis= out= keepdims=
nanprod a axis= dtype= out= keepdims=
nanstd a axis= dtype= out= ddof= keepdims=
nansum a axis= dtype= out= keepdims=
nanvar a axis= dtype= out= ddof= keepdims=
ndim a
nonzero a
ones shape dtype= order=
ones_like a dtype= order= subok= shape=
outer a b out=
packbits a axis= bitorder=
pad array pad_width mode= **kwargs
partition a kth axis=
percentile a q axis= out= overwrite_input= method= keepdims= * interpolation=
permute_dims a axes=
piecewise x condlist funclist
place arr mask vals
poly seq_of_zeros
polyadd a1 a2
polyfit x y deg rcond= full= w= cov=
polymul a1 a2
polysub a1 a2
polyval p x
printoptions *args **kwargs
prod a axis= dtype= out= keepdims=
promote_types type1 type2
ptp a axis= out= keepdims=
put a ind v mode=
put_along_axis arr indices values axis
putmask a mask values
quantile a q axis= out= overwrite_input= method= keepdims= * interpolation=
ravel a order=
ravel_multi_index multi_index dims mode= order=
real val
real_if_close a tol=
repeat a repeats axis=
require a dtype= requirements=
reshape a newshape order= * copy=
resize a new_shape
result_type *arrays_and_dtypes
roll a shift axis=
rollaxis a axis start=
roots p
rot90 a k= axes=
round a decimals= out=
row_stack tup * dtype= casting=
save file arr allow_pickle=
savetxt fname X *args **kwargs
savez file *args **kwds
savez_compressed file *args **kwds
searchsorted a v side= sorter=
select condlist choicelist default=
setdiff1d ar1 ar2 assume_unique=
setxor1d ar1 ar2 assume_unique=
shape a
shares_memory a b max_work=
show_config * _full=
size a axis=
sort a axis= kind=
sort_complex a
split ary indices_or_sections axis=
squeeze a axis=
stack tup axis= out= * dtype= casting=
std a axis= dtype= out= ddof= keepdims=
sum a axis= dtype= out= keepdims=
swapaxes a axis1 axis2
take a indices axis= out=
take_along_axis a indices axis
tensordot a b axes=
tile A reps
trace a offset= axis1= axis2= dtype= out=
transpose a axes=
trapezoid y x= dx= axis=
tri N M= k= dtype=
tril m k=
tril_indices n k= m=
tril_indices_from arr k=
trim_zeros filt trim=
triu m k=
triu_indices n k= m=
triu_indices_from arr k=
typename char
union1d arr1 arr2
unique ar return_index= return_inverse= return_counts= axis= * equal_nan=
unique_all x
unique_counts x
unique_inverse x
unique_values x
unpackbits a axis= bitorder=
unravel_index indices dims order=
unwrap p discont= axis= * period=
vander x N= increasing=
var a axis= dtype= out= ddof= keepdims=
vdot a b
vsplit ary indices_or_sections
vstack tup * dtype= casting=
where condition x= y=
zeros shape dtype= order=
zeros_like a dtype= order= subok= shape=
""",
    "linalg": """
cholesky a
cond x p=
cross x1 x2 * axis=
det a
eig a
eigh a UPLO=
eigvals a
eigvalsh a UPLO=
inv a
lstsq a b rcond=
matmul *args axes= axis= keepdims= casting= dtype= signature= order= out=
matrix_power M n
matrix_rank M tol=
matrix_transpose a
norm x ord= axis= keepdims=
pinv a rcond=
qr a mode=
slogdet a
solve a b
svd a full_matrices= compute_uv=
tensorinv a ind=
tensorsolve a b axes=
""",
    "fft": """
fft a n= axis= norm=
fft2 a s= axes= norm=
fftfreq n d=
fftn a s= axes= norm=
fftshift x axes=
hfft a n= axis= norm=
ifft a n= axis= norm=
ifft2 a s= axes= norm=
ifftn a s= axes= norm=
ifftshift x axes=
ihfft a n= axis= norm=
irfft a n= axis= norm=
irfft2 a s= axes= norm=
irfftn a s= axes= norm=
rfft a n= axis= norm=
rfft2 a s= axes= norm=
rfftfreq n d=
rfftn a s= axes= norm=
""",
    "lib.stride_tricks": """
as_strided x shape= strides=
sliding_window_view x window_shape axis= * subok= writeable=
""",
    "cupyx.scipy.linalg": """
__ua_convert__ dispatchables coerce
__ua_function__ method args kwargs
bandwidth a
expm a
khatri_rao a b
solve_triangular a b trans= lower= unit_diagonal= overwrite_b= check_finite=
""",
    "cupyx.scipy.special": """
btdtr a b x out=
btdtri a b p out=
lambertw z k= tol=
log_softmax x axis=
logsumexp a axis= b= keepdims= return_sign=
multigammaln a d
polygamma n x
round a decimals= out=
softmax x axis=
sph_harm m n theta phi out=
sph_harm_y n m theta phi * diff_n=
spherical_yn n z derivative=
""",
}

METHODS = """
all axis= out= keepdims=
any axis= out= keepdims=
argmax axis= out= dtype= keepdims=
argmin axis= out= dtype= keepdims=
argpartition kth axis=
argsort axis= kind=
astype dtype order= casting= subok= copy=
byteswap inplace=
choose choices out= mode=
clip min= max= out=
compress condition axis= out=
conj
conjugate
copy order=
cumprod axis= dtype= out=
cumsum axis= dtype= out=
diagonal offset= axis1= axis2=
dot b out=
dump file
dumps
fill value
flatten order=
get stream= order= out= blocking=
item
max axis= out= keepdims=
mdspan * index_type allow_unsafe=
mean axis= dtype= out= keepdims=
min axis= out= keepdims=
nonzero
partition kth axis=
prod axis= dtype= out= keepdims=
ptp axis= out= keepdims=
put indices values mode=
ravel order=
reduced_view dtype=
repeat repeats axis=
reshape *shape order= copy=
round decimals= out=
scatter_add slices value
scatter_max slices value
scatter_min slices value
searchsorted v side= sorter=
set arr stream=
sort axis= kind=
squeeze axis=
std axis= dtype= out= ddof= keepdims=
sum axis= dtype= out= keepdims=
swapaxes axis1 axis2
take indices axis= out=
toDlpack
tobytes order=
tofile fid sep= format=
tolist
trace offset= axis1= axis2= dtype= out=
transpose *axes
var axis= dtype= out= ddof= keepdims=
view dtype= type=
"""

ATTRIBUTES = """
T base cstruct data device dtype flags flat imag itemsize mT nbytes ndim real shape size strides
"""

UFUNCS = {
    """
?->? b->b B->B h->h H->H i->i I->I l->l L->L q->q Q->Q e->e E->E f->f d->d F->f D->d
""": """
abs absolute
""",
    """
e->e E->E f->f d->d F->F D->D
""": """
acos acosh arccos arccosh arcsin arcsinh arctan arctanh asin asinh atan atanh cos cosh exp exp2 expm1 i0 log log10 log1p log2
rint sin sinc sinh sqrt tan tanh
""",
    """
??->? bb->b BB->B hh->h HH->H ii->i II->I ll->l LL->L qq->q QQ->Q ee->e EE->E ff->f dd->d FF->F DD->D
""": """
add fmax fmin maximum minimum multiply subtract
""",
    """
ee->e EE->E ff->f dd->d FF->F DD->D
""": """
arctan2 atan2 copysign hypot nextafter
""",
    """
??->? bb->b BB->B hh->h HH->H ii->i II->I ll->l LL->L qq->q QQ->Q
""": """
bitwise_and bitwise_or bitwise_xor gcd lcm
""",
    """
b->B B->B h->B H->B i->B I->B l->B L->B q->B Q->B
""": """
bitwise_count
""",
    """
?->? b->b B->B h->h H->H i->i I->I l->l L->L q->q Q->Q
""": """
bitwise_invert bitwise_not invert
""",
    """
bb->b BB->B hh->h HH->H ii->i II->I ll->l LL->L qq->q QQ->Q
""": """
bitwise_left_shift bitwise_right_shift left_shift right_shift
""",
    """
e->e E->E f->f d->d
""": """
cbrt deg2rad degrees fabs rad2deg radians
""",
    """
?->? b->b B->B h->h H->H i->i I->I l->l L->L q->q Q->Q e->e E->E f->f d->d
""": """
ceil fix floor trunc
""",
    """
b->b B->B h->h H->H i->i I->I l->l L->L q->q Q->Q e->e E->E f->f d->d F->F D->D
""": """
conj conjugate reciprocal sign square
""",
    """
qq->d qQ->d Qq->d QQ->d ee->e EE->E ff->f dd->d FF->F DD->D
""": """
divide true_divide
""",
    """
bb->bb BB->BB hh->hh HH->HH ii->ii II->II ll->ll LL->LL qq->qq QQ->QQ ee->ee ff->ff dd->dd
""": """
divmod
""",
    """
??->? qq->? QQ->? qQ->? Qq->? ee->? EE->? ff->? dd->? FF->? DD->? VV->?
""": """
equal not_equal
""",
    """
dd->d FF->D DD->D
""": """
float_power
""",
    """
bb->b BB->B hh->h HH->H ii->i II->I ll->l LL->L qq->q QQ->Q ee->e EE->E ff->f dd->d
""": """
floor_divide fmod mod remainder
""",
    """
e->ei E->Ei f->fi d->di
""": """
frexp
""",
    """
??->? qq->? QQ->? qQ->? Qq->? ee->? EE->? ff->? dd->? FF->? DD->?
""": """
greater greater_equal less less_equal
""",
    """
ee->e EE->E ff->f dd->d
""": """
heaviside logaddexp logaddexp2
""",
    """
e->? E->? f->? d->? F->? D->?
""": """
isfinite isinf isnan
""",
    """
ei->e Ei->E fi->f el->e El->E fl->f di->d dq->d
""": """
ldexp
""",
    """
??->? qq->? QQ->? qQ->? Qq->? ee->? EE->? ff->? dd->?
""": """
logical_and logical_or
""",
    """
?->? b->? B->? h->? H->? i->? I->? l->? L->? q->? Q->? e->? f->? d->?
""": """
logical_not
""",
    """
??->? bb->? BB->? hh->? HH->? ii->? II->? ll->? LL->? qq->? QQ->? ee->? ff->? dd->?
""": """
logical_xor
""",
    """
e->ee E->EE f->ff d->dd
""": """
modf
""",
    """
?->? b->b B->B h->h H->H i->i I->I l->l L->L q->q Q->Q e->e E->E f->f d->d F->F D->D
""": """
negative positive
""",
    """
??->b bb->b BB->B hh->h HH->H ii->i II->I ll->l LL->L qq->q QQ->Q ee->e EE->E ff->f dd->d FF->F DD->D
""": """
pow power
""",
    """
e->? E->? f->? d->?
""": """
signbit
""",
}

SPECIAL_UFUNCS = {
    """
fff->f dld->d ddd->d
""": """
bdtr bdtrc bdtri
""",
    """
ll->d LL->d ee->d ff->f dd->d
""": """
beta betaln
""",
    """
fff->f ddd->d
""": """
betainc betaincinv fdtr fdtrc fdtri gdtr gdtrc lpmv wright_bessel
""",
    """
ff->f dd->d
""": """
binom chdtr chdtrc chdtri ellipeinc ellipkinc expn gammainc gammaincc gammainccinv gammaincinv huber kl_div pdtr pdtrc poch
pseudo_huber rel_entr zeta
""",
    """
ee->f ff->f dd->d
""": """
boxcox boxcox1p inv_boxcox inv_boxcox1p
""",
    """
l->d L->d e->d f->f d->d
""": """
cbrt cosdg cosm1 cotdg gammasgn i0 i0e i1 i1e j0 j1 k0 k0e k1 k1e sindg tandg y0 y1 zetac
""",
    """
l->d e->d f->f d->d F->F D->D
""": """
digamma gamma loggamma psi rgamma
""",
    """
ff->ffff dd->dddd
""": """
ellipj
""",
    """
f->f d->d
""": """
ellipk ellipkm1 entr erfcinv erfinv exp1 expi ndtri
""",
    """
e->d f->f d->d
""": """
erf erfc erfcx expit log_expit log_ndtr logit ndtr
""",
    """
e->d l->d L->d f->f d->d
""": """
exp10 exp2
""",
    """
e->d l->d L->d f->f d->d F->F D->D
""": """
expm1
""",
    """
l->d L->d e->d f->f d->d F->F D->D
""": """
exprel
""",
    """
l->d e->d f->f d->d
""": """
gammaln
""",
    """
l->d L->d e->d f->f F->F d->d D->D
""": """
log1p
""",
    """
lld->d fff->f ddd->d
""": """
nbdtr nbdtrc nbdtri
""",
    """
ld->d ff->f dd->d
""": """
pdtri
""",
    """
lll->d LLL->d eee->d fff->f ddd->d
""": """
radian
""",
    """
f->ff d->dd F->FF D->DD
""": """
shichi sici
""",
    """
e->e E->E f->f d->d F->F D->D
""": """
sinc
""",
    """
ee->d ll->d LL->d ff->f dd->d FF->F DD->D
""": """
xlog1py xlogy
""",
    """
id->d dd->d
""": """
yn
""",
}
